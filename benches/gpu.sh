#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one go: what holds, what it prints and how long it takes, into a folder.
#
#   benches/gpu.sh [FOLDER]        default gpu-results; PyTorch comparisons where `kiln bench --setup-peers` was run
#
# Nothing here changes the card's settings. A step that fails is told at the end and does not stop the rest.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
mkdir -p "$out"
failed=()

step() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    echo "== $*"
    "$@" >"$out/$name.txt" 2>&1 || failed+=("$name")
    tail -n 3 "$out/$name.txt"
    echo "== took $((SECONDS - start)) s"
}

step card nvidia-smi
step build cargo build --release
kiln=target/release/kiln
step doctor $kiln doctor

# Every kernel against f64, on the card and simulated: the same cases, so that what differs is the card's.
step kernels $kiln kernels run --all --device cuda --json --save "$out/gpu.safetensors"
step kernels-simulated $kiln kernels run --all --device sim --json --against "$out/gpu.safetensors"

# Every operation against f64, and models of each kind beside the CPU.
step tests env KILN_TEST_GPU=cuda cargo test --release --test it gpu

# The same steps on the card, simulated and on the CPU: their losses lie beside each other in metrics.jsonl.
tiny=(--set model.layers=2 --set model.heads=2 --set model.d=64 --set train.context=64 --set data.vocab=512
    --set train.steps=10 --set train.sample_every=0 --set train.eval_every=10 --set optim.warmup=2)
for precision in f32 bf16; do
    for device in cpu sim cuda; do
        run=(--set run.dir="$out" --set run.name="$precision-$device" --set train.precision=$precision)
        step "train-$precision-$device" $kiln train --device $device "${tiny[@]}" "${run[@]}"
    done
done

# NVIDIA's own checks of memory, races and unwritten memory, where they are installed.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        step "sanitizer-$tool" compute-sanitizer --tool $tool --error-exitcode 1 $kiln kernels run --all --device cuda
    done
else
    echo "== skipped: compute-sanitizer is not installed"
fi

# Speed, and in turns with PyTorch where its environment was made (or KILN_PYTHON names one): products against cuBLAS,
# attention against scaled_dot_product_attention, whole steps of GPT-2 124M against eager and torch.compile.
torch=() steps=()
if [ -n "${KILN_PYTHON:-}" ] || [ -x "${XDG_CACHE_HOME:-$HOME/.cache}/kiln/peers/venv/bin/python" ]; then
    torch=(--against torch) steps=(--against "torch,torch:compile")
else
    echo "== without PyTorch: kiln bench --setup-peers was not run"
fi
for precision in f32 bf16; do
    for form in nt nn tn; do
        step "bench-gemm-$form-$precision" $kiln bench gemm --device cuda --json --form $form --precision $precision "${torch[@]}"
    done
    for name in attention conv layernorm gelu ops; do
        step "bench-$name-$precision" $kiln bench $name --device cuda --json --precision $precision "${torch[@]}"
    done
    for model in nano gpt2 data/recipes/gpt2.toml; do
        step "bench-$(basename "$model" .toml)-$([ -f "$model" ] && echo large-)$precision" $kiln bench step $model --device cuda --json --precision $precision "${steps[@]}"
    done
done
step bench-xent $kiln bench xent --device cuda --json "${torch[@]}"
step bench-adamw $kiln bench adamw --device cuda --json "${torch[@]}"

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}; see $out"
    exit 1
fi
echo "all held; see $out"
