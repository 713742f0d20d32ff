//! Products, with all their forms, tiles and epilogues.

use super::*;
use kiln::device::sim::Class;

/// The sizes of which the counters are looked at.
const COUNTED: &str = " 128 x 128 x 64 ";

/// Products of planned tiles, of large ones, and of many.
fn planned(name: &str) -> bool {
    !name.contains("tile") || name.contains("tile 128 x 256") || name.contains(" 580 x 70")
}

#[test]
fn tensor_cores_multiply_in_all_forms() {
    assert_eq!(hold("gemm.ptx", |name| !planned(name) && !name.contains(COUNTED)).len(), 3 * 3 * 4 + 4);
}

#[test]
fn planned_and_large_tiles_multiply() {
    assert_eq!(hold("gemm.ptx", planned).len(), 9);
}

#[test]
fn tensor_cores_meet_no_bank_twice_and_no_sector_in_vain() {
    let done = hold("gemm.ptx", |name| name.contains(COUNTED));
    for (what, _, counters) in counted(&done) {
        assert!(counters.class(Class::Mma).warp > 0, "{what}");
        assert_eq!(counters.shared.steps, counters.shared.ideal, "{what}: banks");
        assert_eq!(counters.global.steps, counters.global.ideal, "{what}: sectors");
    }
    assert_eq!(done.len(), 6);
}

#[test]
fn f32_is_the_chain_of_the_cpu() {
    let done = hold("sgemm.ptx", |name| !name.contains("onto"));
    let even = |name: &str| name.contains(COUNTED) || name.contains(" 100 x 70 x 33 ");
    let done: Vec<_> = done.into_iter().filter(|(case, _)| even(&case.name)).collect();
    for (what, _, counters) in counted(&done) {
        assert_eq!(counters.shared.steps, counters.shared.ideal, "{what}: banks");
    }
    assert_eq!(done.len(), 6);
}

#[test]
fn f32_begins_its_chain_with_what_is_there() {
    hold("sgemm.ptx", |name| name.contains("onto"));
}
