# Libraries that the runtime brings from the host, behind those of the image; and a prompt that tells where one is.

case ":${LD_LIBRARY_PATH:-}:" in
    *:/.singularity.d/libs:*) ;;
    *) LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs ;;
esac
export LD_LIBRARY_PATH

if [ -n "${APPTAINER_CONTAINER:-}" ]; then
    PS1="Apptainer> "
else
    PS1="Singularity> "
fi
export PS1
