//! Kernels that do the same with each element.

use super::*;

#[test]
fn arithmetic_is_that_of_f64_rounded() {
    hold("elementwise.ptx", |name| !name.contains("blocks"));
}

#[test]
fn few_blocks_go_over_many_elements() {
    hold("elementwise.ptx", |name| name.contains("by two blocks"));
}

#[test]
fn activations_and_their_slopes_are_exact_to_their_type() {
    assert_eq!(hold("activation.ptx", |name| !name.contains("NaN")).len(), 8 * 3);
}

#[test]
fn slopes_bend_as_second_differences_say() {
    assert_eq!(hold("slope.ptx", |_| true).len(), 6 * 3);
}

#[test]
fn activations_pass_nan_on() {
    assert_eq!(hold("activation.ptx", |name| name.contains("NaN")).len(), 8);
}

#[test]
fn swiglu_and_its_gradients() {
    hold("swiglu.ptx", |_| true);
}

#[test]
fn casts_round_to_nearest_even() {
    assert_eq!(hold("cast.ptx", |_| true).len(), 9 * 3);
}

#[test]
fn dropout_draws_the_mask_of_the_stream() {
    hold("dropout.ptx", |_| true);
}

#[test]
fn adamw_updates_clips_and_skips() {
    hold("adamw.ptx", |_| true);
}

#[test]
fn samples_draw_the_noise_of_the_stream() {
    hold("sample.ptx", |_| true);
}
