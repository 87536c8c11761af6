# The environment of an app (Scientific Filesystem), if one was asked for.

__debark_app=${APPTAINER_APPNAME:-${SINGULARITY_APPNAME:-}}
if [ -n "$__debark_app" ] && [ -d "/scif/apps/$__debark_app" ]; then
    SCIF_APPNAME=$__debark_app
    SCIF_APPROOT=/scif/apps/$__debark_app
    SCIF_APPDATA=/scif/data/$__debark_app
    export SCIF_APPNAME SCIF_APPROOT SCIF_APPDATA
    if [ -d "$SCIF_APPROOT/bin" ]; then
        PATH=$SCIF_APPROOT/bin:$PATH
        export PATH
    fi
    if [ -d "$SCIF_APPROOT/lib" ]; then
        LD_LIBRARY_PATH=$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        export LD_LIBRARY_PATH
    fi
    for __debark_app_env in "$SCIF_APPROOT"/scif/env/*.sh; do
        if [ -f "$__debark_app_env" ]; then
            . "$__debark_app_env"
        fi
    done
    unset __debark_app_env
fi
unset __debark_app
