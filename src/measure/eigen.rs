//! Eigenvalues and eigenvectors of symmetric matrices.
//!
//! Householder reflections bring A to a tridiagonal T = QᵀAQ; the QL algorithm with implicit shifts brings T to a diagonal
//! (Bowdler, Martin, Reinsch and Wilkinson, "The QR and QL algorithms for symmetric matrices", 1968; EISPACK's tred2 and
//! imtql2). About 4/3 n³ products for the values, 6 n³ more for the vectors.

use super::dot;

/// The eigenvalues of a symmetric matrix (n, n), ascending. Only its lower half is read.
pub fn eigenvalues(a: &[f64], n: usize) -> Vec<f64> {
    decompose(a, n, false).0
}

/// The eigenvalues, ascending, and a matrix (n, n) whose *row* i is the eigenvector of value i, of length 1.
pub fn eigenvectors(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    decompose(a, n, true)
}

/// How often QL sweeps for one value at most; two suffice on average.
const SWEEPS: usize = 60;

fn decompose(a: &[f64], n: usize, vectors: bool) -> (Vec<f64>, Vec<f64>) {
    assert!(n > 0 && a.len() == n * n, "a square matrix");
    let (mut d, mut e, mut z) = tridiagonal(a, n, vectors);
    // Row i of z is column i of Q: a rotation of two columns of Q is one of two rows.
    for l in 0..n {
        for _ in 0..SWEEPS {
            // The first value below which T falls apart.
            let small = |m: usize| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs());
            let m = (l..n - 1).find(|&m| small(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = libm::hypot(g, 1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut apart = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                r = libm::hypot(f, g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    apart = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                if vectors {
                    let (low, high) = z.split_at_mut((i + 1) * n);
                    for (x, y) in low[i * n..].iter_mut().zip(&mut high[..n]) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
            if !apart {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| d[i].total_cmp(&d[j]));
    let rows = if vectors { order.iter().flat_map(|&i| &z[i * n..][..n]).copied().collect() } else { Vec::new() };
    (order.iter().map(|&i| d[i]).collect(), rows)
}

/// The diagonal of T, what stands beside it (element i between i and i + 1; the last is 0), and Qᵀ where it is wanted.
fn tridiagonal(a: &[f64], n: usize, vectors: bool) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut a = a.to_vec();
    for i in 0..n {
        (i + 1..n).for_each(|j| a[i * n + j] = a[j * n + i]);
    }
    let (mut d, mut e, mut betas) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let mut w = vec![0.0; n];
    for k in 0..n {
        d[k] = a[k * n + k];
        let (upper, block) = a.split_at_mut((k + 1) * n);
        // What is to become (e, 0, 0, …); then v of the reflection 1 − β v vᵀ.
        let v = &mut upper[k * n + k + 1..];
        let scale = v.iter().skip(1).fold(0.0, |most: f64, x| most.max(x.abs()));
        if scale == 0.0 {
            e[k] = v.first().copied().unwrap_or(0.0);
            continue;
        }
        let scale = scale.max(v[0].abs());
        let norm = scale * v.iter().map(|x| (x / scale) * (x / scale)).sum::<f64>().sqrt();
        e[k] = -norm.copysign(v[0]);
        v[0] -= e[k];
        // Of length about 1, so that small matrices have no v·v that is 0.
        let length = dot(v, v).sqrt();
        v.iter_mut().for_each(|v| *v /= length);
        betas[k] = 2.0;
        // With p = 2Bv and w = p − (p·v)v, the block B becomes B − v wᵀ − w vᵀ.
        let w = &mut w[..v.len()];
        for (w, row) in w.iter_mut().zip(block.chunks_exact(n)) {
            *w = 2.0 * dot(&row[k + 1..], v);
        }
        let along = dot(w, v);
        w.iter_mut().zip(&*v).for_each(|(w, v)| *w -= along * v);
        for (i, row) in block.chunks_exact_mut(n).enumerate() {
            let (vi, wi) = (v[i], w[i]);
            row[k + 1..].iter_mut().zip(&*v).zip(&*w).for_each(|((b, v), w)| *b -= vi * w + wi * v);
        }
    }
    let mut z = Vec::new();
    if vectors {
        z.resize(n * n, 0.0);
        (0..n).for_each(|i| z[i * n + i] = 1.0);
        for k in (0..n).rev().filter(|&k| betas[k] != 0.0) {
            let v = &a[k * n + k + 1..(k + 1) * n];
            for row in z[(k + 1) * n..].chunks_exact_mut(n) {
                let along = betas[k] * dot(&row[k + 1..], v);
                row[k + 1..].iter_mut().zip(v).for_each(|(z, v)| *z -= along * v);
            }
        }
    }
    (d, e, z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn check(a: &[f64], n: usize) {
        let (values, vectors) = eigenvectors(a, n);
        let most = values.iter().fold(1e-300, |most: f64, x| most.max(x.abs()));
        for i in 0..n {
            let v = &vectors[i * n..][..n];
            for j in 0..n {
                // The lower half stands for both.
                let av: f64 = (0..n).map(|k| a[j.max(k) * n + j.min(k)] * v[k]).sum();
                assert!((av - values[i] * v[j]).abs() < 1e-13 * n as f64 * most, "{n}: value {i}, row {j}");
                let product = dot(&vectors[j * n..][..n], v);
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-13 * n as f64, "{n}: vectors {i}, {j}");
            }
        }
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
        let alone = eigenvalues(a, n);
        assert!(values.iter().zip(&alone).all(|(a, b)| (a - b).abs() <= 1e-13 * n as f64 * most));
    }

    #[test]
    fn vectors_are_turned_into_multiples_of_themselves() {
        for n in [1, 2, 3, 8, 33, 70] {
            let mut x = vec![0.0; n * n];
            Stream::new(n as u64, Purpose::Test, 0, 0).normals(1.0, &mut x);
            let full: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            check(&full, n);
            // Of rank 2, with many values that are 0; diagonal; all equal; tiny.
            let product = |i: usize, j: usize| x[i] * x[j] + x[n * n - 1 - i] * x[n * n - 1 - j];
            check(&(0..n * n).map(|k| f64::from(product(k / n, k % n))).collect::<Vec<_>>(), n);
            check(&(0..n * n).map(|k| if k / n == k % n { (k % 7) as f64 } else { 0.0 }).collect::<Vec<_>>(), n);
            check(&vec![1.0; n * n], n);
            check(&full.iter().map(|x| x * 1e-150).collect::<Vec<_>>(), n);
            check(&vec![0.0; n * n], n);
        }
    }

    #[test]
    fn a_chain_of_springs_has_the_values_of_the_textbook() {
        // 2 on the diagonal and −1 beside it: 2 − 2 cos(kπ / (n + 1)).
        let n = 50usize;
        let a: Vec<f64> = (0..n * n).map(|k| [2.0, -1.0, 0.0][(k / n).abs_diff(k % n).min(2)]).collect();
        for (k, value) in (1..).zip(eigenvalues(&a, n)) {
            let want = 2.0 - 2.0 * (f64::from(k) * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((value - want).abs() < 1e-13, "{k}: {value}, not {want}");
        }
    }
}
