//! Kernels that go over rows.

use super::*;

#[test]
fn norms_and_their_gradients() {
    assert_eq!(hold("norm.ptx", |_| true).len(), 5 * 9);
}

#[test]
fn traffic_is_what_it_must_be_in_what_is_typical() {
    for file in ["norm.ptx", "adamw.ptx", "reduce.ptx", "rope.ptx", "gemm.ptx", "attention.ptx"] {
        let typical = |name: &str| cases().iter().any(|case| case.file == file && case.name == name && case.typical);
        let done = hold(file, typical);
        for (name, _, counters) in counted(&done) {
            for (what, traffic) in [("sectors", counters.global), ("bank cycles", counters.shared)] {
                let share = traffic.steps as f64 / traffic.ideal.max(1) as f64;
                assert!(share <= 1.1, "{name}: {share:.2} times as many {what} as there must be");
            }
        }
    }
}

#[test]
fn sums_of_columns_rows_and_all() {
    hold("reduce.ptx", |_| true);
}

#[test]
fn cross_entropy_and_its_gradient_in_place() {
    hold("xent.ptx", |name| name.starts_with("loss"));
}

#[test]
fn log_probabilities_entropies_and_their_gradients() {
    hold("xent.ptx", |name| name.starts_with("log p"));
}

#[test]
fn rope_turns_heads_and_copies_the_rest() {
    hold("rope.ptx", |_| true);
}

#[test]
fn embeddings_and_their_gradients_in_the_order_of_the_cpu() {
    hold("embedding.ptx", |_| true);
}

#[test]
fn losses_of_elements_and_their_gradients() {
    hold("loss.ptx", |_| true);
}

#[test]
fn the_divergence_of_normal_distributions() {
    hold("kl.ptx", |_| true);
}

#[test]
fn losses_of_policies_and_values() {
    hold("policy.ptx", |_| true);
}

#[test]
fn norms_of_pictures_and_their_gradients() {
    hold("picture_norm.ptx", |_| true);
}

#[test]
fn products_of_a_matrix_with_a_vector_and_distances_from_spheres() {
    hold("dots.ptx", |_| true);
    hold("sphere.ptx", |_| true);
    hold("spectral.ptx", |_| true);
}

#[test]
fn pictures_in_other_colours_moved_and_with_holes() {
    hold("augment.ptx", |_| true);
}

#[test]
fn examples_between_two() {
    hold("blend.ptx", |_| true);
}

#[test]
fn pictures_in_another_size_and_the_way_back() {
    hold("resample.ptx", |_| true);
}

#[test]
fn halves_of_rows_and_back() {
    hold("split.ptx", |_| true);
}

#[test]
fn nearest_codes_and_where_codes_move() {
    hold("codes.ptx", |_| true);
}
