//! Matrix products of other crates, for comparison (feature `peers`): row-major f32, on as many threads as are asked for.

use std::sync::Once;

/// A crate that multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// `faer`.
    Faer,
    /// `gemm`.
    Gemm,
    /// `matrixmultiply`.
    MatrixMultiply,
}

/// A matrix that is read, any of its two orders: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    /// From row to row, and from column to column.
    strides: [usize; 2],
}

impl<'a> Operand<'a> {
    /// A row-major matrix, or the transpose of one of shape `[columns, rows]`.
    ///
    /// # Panics
    /// `data` has another number of elements.
    pub fn new(data: &'a [f32], shape: [usize; 2], transposed: bool) -> Operand<'a> {
        assert_eq!(data.len(), shape[0] * shape[1], "a matrix of {shape:?}");
        let strides = if transposed { [1, shape[0]] } else { [shape[1], 1] };
        Operand { data, shape, strides }
    }
}

impl Rival {
    /// c = a·b, row-major.
    ///
    /// # Panics
    /// The shapes do not fit.
    pub fn multiply(self, threads: usize, a: Operand, b: Operand, c: &mut [f32]) {
        let ([m, k], n) = (a.shape, b.shape[1]);
        assert!(b.shape[0] == k && c.len() == m * n, "{:?} x {:?} into {}", a.shape, b.shape, c.len());
        let [ar, ac] = a.strides.map(|s| s as isize);
        let [br, bc] = b.strides.map(|s| s as isize);
        match self {
            Rival::Faer => {
                let mat = |x: Operand<'_>| {
                    // SAFETY: by `Operand::new` every element is inside of the data, which outlives the product.
                    unsafe {
                        faer::MatRef::from_raw_parts(
                            x.data.as_ptr(),
                            x.shape[0],
                            x.shape[1],
                            x.strides[0] as isize,
                            x.strides[1] as isize,
                        )
                    }
                };
                let par = if threads == 1 { faer::Par::Seq } else { faer::Par::rayon(threads) };
                let c = faer::MatMut::from_row_major_slice_mut(c, m, n);
                faer::linalg::matmul::matmul(c, faer::Accum::Replace, mat(a), mat(b), 1.0f32, par);
            }
            Rival::Gemm => {
                let par = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
                // SAFETY: shapes and strides describe the three slices, as asserted above and by `Operand::new`.
                unsafe {
                    let (pc, pa, pb) = (c.as_mut_ptr(), a.data.as_ptr(), b.data.as_ptr());
                    gemm::gemm(
                        m, n, k, pc, 1, n as isize, false, pa, ac, ar, pb, bc, br, 0.0, 1.0, false, false, false, par,
                    );
                }
            }
            Rival::MatrixMultiply => {
                static THREADS: Once = Once::new();
                // SAFETY: kiln's workers never look at the environment, and this thread does nothing else meanwhile. The
                // crate reads the variable once, at its first product.
                THREADS.call_once(|| unsafe { std::env::set_var("MATMUL_NUM_THREADS", threads.to_string()) });
                // SAFETY: as above.
                unsafe {
                    let (pc, pa, pb) = (c.as_mut_ptr(), a.data.as_ptr(), b.data.as_ptr());
                    matrixmultiply::sgemm(m, k, n, 1.0, pa, ar, ac, pb, br, bc, 0.0, pc, n as isize, 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_give_the_product() {
        let (m, k, n) = (5, 7, 3);
        let (a, b): (Vec<f32>, Vec<f32>) = ((0..35).map(|x| x as f32).collect(), (0..21).map(|x| x as f32).collect());
        let at = |x: &Operand, i: usize, j: usize| x.data[i * x.strides[0] + j * x.strides[1]];
        for (ta, tb) in [(false, false), (false, true), (true, false)] {
            let (a, b) = (Operand::new(&a, [m, k], ta), Operand::new(&b, [k, n], tb));
            for rival in [Rival::Faer, Rival::Gemm, Rival::MatrixMultiply] {
                let mut c = vec![f32::NAN; m * n];
                rival.multiply(1, a, b, &mut c);
                for (e, &c) in c.iter().enumerate() {
                    let want: f32 = (0..k).map(|p| at(&a, e / n, p) * at(&b, p, e % n)).sum();
                    assert_eq!(c, want, "{rival:?} {ta} {tb} {e}");
                }
            }
        }
    }
}
