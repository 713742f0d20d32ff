//! Attention, forward and backward.

use super::*;
use kiln::device::sim::Class;

/// The sizes of which the counters are looked at.
const COUNTED: &str = "1 x 128, ";

#[test]
fn attention_on_tensor_cores_and_its_gradients() {
    hold("attention.ptx", |name| !name.contains(COUNTED));
}

#[test]
fn attention_in_f32_and_its_gradients_for_any_head() {
    hold("sattention.ptx", |name| !name.contains(COUNTED));
}

#[test]
fn attention_meets_no_bank_twice_and_no_sector_in_vain() {
    for (file, tensor) in [("attention.ptx", true), ("sattention.ptx", false)] {
        let done = hold(file, |name| name.contains(COUNTED));
        for (what, entry, counters) in counted(&done) {
            assert!(!tensor || entry == "attention_delta" || counters.class(Class::Mma).warp > 0, "{what}");
            assert_eq!(counters.shared.steps, counters.shared.ideal, "{what}: banks");
            let (steps, ideal) = (counters.global.steps, counters.global.ideal);
            assert!(10 * steps <= 11 * ideal, "{what}: {steps} sectors, {ideal} at best");
        }
    }
}
