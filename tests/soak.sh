#!/bin/sh
# Long checks that the ordinary tests sample: exp, log, tanh and erf over all 2^32 inputs, at every level of this processor
# (about ten minutes on two cores). Prints the largest error of each.
set -eu
cd "$(dirname "$0")/.."
KILN_SOAK=1 cargo test --release --test it math:: -- --nocapture --test-threads 1
