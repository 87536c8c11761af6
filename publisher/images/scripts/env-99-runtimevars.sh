# What the caller told the runtime about PATH: put before, put behind, put in its place.

if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH=$SING_USER_DEFINED_PREPEND_PATH:$PATH
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH=$PATH:$SING_USER_DEFINED_APPEND_PATH
fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH=$SING_USER_DEFINED_PATH
fi
export PATH
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
