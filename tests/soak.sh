#!/bin/sh
# Long checks that the ordinary tests sample. exp, log, tanh and erf over all 2^32 inputs, at every level of this processor
# (about ten minutes on two cores), with the largest error of each; the numeric contract at the size of a real model;
# checkpoints and runs whose disk fails, that lose power and that are killed, with thirty times as many seeds and ten times
# as many kills; and for an hour (KILN_SOAK_MINUTES) one fault after the other: runs and servers killed, disks full, bits
# flipped, shards cut, after which each run ends with the bits of one that nothing happened to.
set -eu
cd "$(dirname "$0")/.."
export KILN_SOAK=1
cargo test --release --test it math:: -- --nocapture --test-threads 1
cargo test --release --test it contract:: -- --nocapture
cargo test --release --test it crash:: -- --nocapture --skip nothing_is_lost_through_faults_of_all_kinds
KILN_SOAK_MINUTES="${KILN_SOAK_MINUTES:-60}" cargo test --release --test it nothing_is_lost_through_faults -- --nocapture
