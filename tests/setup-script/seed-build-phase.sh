runHook preBuild

export HOME=$TMPDIR
export SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt
export GIT_SSL_CAINFO=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt
export UV_PYTHON=${pkgs.python314}/bin/python3.14
export UV_LINK_MODE=copy

# gssapi's pre-generated C code uses S4U functions declared in gssapi_ext.h
# but doesn't include it — force-include via compiler flag
export NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE:-} -include gssapi/gssapi_ext.h"

uv sync \
  --frozen \
  --no-install-project \
  --no-install-workspace \
  --no-dev

runHook postBuild
