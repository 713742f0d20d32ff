//! Convolutions, with all their forms and epilogues.

use super::*;
use kiln::device::sim::Class;

#[test]
fn convolutions_gather_spread_and_weigh() {
    assert_eq!(hold("conv.ptx", |_| true).len(), 2 * 4);
}

#[test]
fn convolutions_in_bf16_are_computed_on_tensor_cores() {
    let done = hold("conv.ptx", |name| name.starts_with("bf16 8x8x16"));
    for (what, _, counters) in counted(&done) {
        assert!(counters.class(Class::Mma).warp > 0, "{what}");
    }
    assert_eq!(done.len(), 1);
}
