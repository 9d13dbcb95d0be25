runHook preInstall

mv .venv $out

# --- Strip Nix store references (FODs must be self-contained) ---
# autoPatchelfHook in authentik-django.nix restores correct RPATHs.

# Replace python store path in pyvenv.cfg with placeholder
sed -i "s|${pkgs.python314}|@python@|g" $out/pyvenv.cfg

# Remove bin/ entirely — main derivation recreates it
rm -rf $out/bin

# Strip store refs from .pyc files (contain embedded paths)
find $out -type f -name '*.pyc' -delete

# Dynamically discover ALL remaining Nix store paths in the output.
# This is more robust than a static list of store paths — any new
# build/runtime dependency is automatically handled.
# Note: || true needed because xargs returns 123 if grep returns 1
# (no match) on any batch, and pipefail propagates that.
{ find $out -type f -print0 \
  | xargs -0 grep -aohE '/nix/store/[a-z0-9]{32}-[^/"[:space:]]+' 2>/dev/null \
  || true; } | sort -u > $TMPDIR/store-refs.txt

echo "Found $(wc -l < $TMPDIR/store-refs.txt) unique store path references to strip"

# Build remove-references-to args from discovered paths
refs_args=""
while IFS= read -r ref; do
  refs_args="$refs_args -t $ref"
done < $TMPDIR/store-refs.txt

# Strip all discovered references from all files
if [ -n "$refs_args" ]; then
  find $out -type f -exec remove-references-to $refs_args {} + 2>/dev/null || true
fi

# Verify — report any remaining references
remaining=$({ find $out -type f -print0 | xargs -0 grep -cl '/nix/store/' 2>/dev/null || true; } | wc -l)
echo "Files with remaining store references: $remaining"
if [ "$remaining" -gt 0 ]; then
  echo "WARNING: Files still containing store references:"
  { find $out -type f -print0 | xargs -0 grep -l '/nix/store/' 2>/dev/null || true; }
fi

runHook postInstall
