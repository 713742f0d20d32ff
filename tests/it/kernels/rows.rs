//! Kernels that go over rows.

use super::*;

#[test]
fn norms_and_their_gradients() {
    assert_eq!(hold("norm.ptx", |_| true).len(), 5 * 8);
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
