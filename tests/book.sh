#!/usr/bin/env bash
# Runs what every chapter of docs/ says to try, in the order of docs/SUMMARY.md and in full: an hour or so on two cores.
# Everything goes into a folder of its own, which is named at the end; the first command that fails ends it.
#
#     bash tests/book.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cargo build --release --manifest-path "$root/Cargo.toml"
kiln=${CARGO_TARGET_DIR:-$root/target}/release/kiln
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
cd "$folder"
ln -sfn "$root/data" data
count=0
for page in $(sed -n 's/.*](\(.*\.md\)).*/\1/p' "$root/docs/SUMMARY.md"); do
    while IFS= read -r command; do
        start=$SECONDS
        echo "== $page: $command"
        (eval "$kiln ${command#kiln }") < /dev/null > last.log 2>&1 || { tail -20 last.log; exit 1; }
        echo "   $((SECONDS - start)) s"
        count=$((count + 1))
    done < <(sed -n '/^## Try it/,/^## [^T]/s/^    \(kiln .*\)/\1/p' "$root/docs/$page")
done
echo "$count commands, all well, in $folder"
