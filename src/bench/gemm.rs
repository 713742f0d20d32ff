//! The matrix product at the shapes of GPTs and at some squares.

use super::{Case, Part, Started, Unit, Work, repeated};
use crate::cpu::gemm::{Mat, MatMut, Precision, gemm};
use crate::device::{Device, Gpu, kernels};
use crate::error::{Error, Result};
use crate::launch;
use crate::rng::{Purpose, Stream};
use crate::tensor::{Element, Out, Spec, Tensor};
use half::bf16;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// How the operands of C = A·B lie in memory; both products' second letter is B's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A (M, K), B stored (N, K): a linear layer's forward pass, x·Wᵀ.
    Nt,
    /// A (M, K), B (K, N): a linear layer's gradient of x, dy·W.
    Nn,
    /// A stored (K, M), B (K, N): a linear layer's gradient of W, dyᵀ·x.
    Tn,
}

/// One product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Columns of B and C.
    pub n: usize,
    /// How the operands lie.
    pub form: Form,
}

/// (K, N) of linear layers: of a GPT of width 384, and GPT-2's attention, QKV, MLP and head.
const LAYERS: [[usize; 2]; 6] = [[384, 1536], [1536, 384], [768, 768], [768, 2304], [768, 3072], [768, 50_304]];

/// M, K, N of the table: each layer for 256, 1024 and 4096 rows, and three squares.
pub fn shapes() -> Vec<[usize; 3]> {
    let layers = LAYERS.into_iter().flat_map(|[k, n]| [256, 1024, 4096].map(|m| [m, k, n]));
    layers.chain([1024, 2048, 4096].map(|n| [n; 3])).collect()
}

/// Reads `MxKxN`.
///
/// # Errors
/// It is not three numbers from 1 on, or a product that no machine holds.
pub fn parse_shape(text: &str) -> Result<[usize; 3]> {
    let wrong = || Error::usage(format!("--shape {text}: not MxKxN"), "give three sizes, as 1024x768x3072");
    let sizes: Vec<usize> = text.split('x').map(|n| n.parse().map_err(|_| wrong())).collect::<Result<_>>()?;
    let shape = <[usize; 3]>::try_from(sizes).map_err(|_| wrong())?;
    if shape.iter().any(|n| !(1..=1 << 20).contains(n)) {
        return Err(Error::usage(format!("--shape {text}: a size is out of range"), "give sizes from 1 to 1048576"));
    }
    Ok(shape)
}

/// The products of these shapes.
pub fn cases(shapes: &[[usize; 3]], form: Form, precision: Precision) -> Vec<Case> {
    let case = |&[m, k, n]: &[usize; 3]| {
        let product = Product { m, k, n, form };
        let name = format!("{m}x{k}x{n} {} {}", form.name(), precision.name());
        let spec = json!({"bench": "gemm", "m": m, "k": k, "n": n, "form": form, "dtype": precision.name()});
        Case::new("gemm", name, spec, move |device| Ok(start(product, precision, device)))
    };
    shapes.iter().map(case).collect()
}

impl Form {
    /// `nt`, `nn`, `tn`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Nt => "nt",
            Form::Nn => "nn",
            Form::Tn => "tn",
        }
    }

    /// Whether A, and B, is stored as its transpose.
    pub fn transposed(self) -> [bool; 2] {
        [self == Form::Tn, self == Form::Nt]
    }
}

impl Product {
    /// Its work with operands stored in this precision and a result of elements of so many bytes.
    pub fn work(&self, precision: Precision, result: usize) -> Work {
        let [m, k, n] = [self.m, self.k, self.n].map(|n| n as f64);
        let bytes = if precision == Precision::Bf16 { 2.0 } else { 4.0 };
        Work { flops: 2.0 * m * k * n, precision, read: bytes * (m * k + k * n), written: result as f64 * m * n }
    }

    /// Operands of random numbers, and room for the result.
    pub fn operands(&self) -> [Vec<f32>; 3] {
        let Product { m, k, n, .. } = *self;
        let random = |number, len| {
            let mut x = vec![0.0; len];
            Stream::new(1, Purpose::Test, number, 0).normals(1.0, &mut x);
            x
        };
        [random(0, m * k), random(1, k * n), vec![0.0; m * n]]
    }
}

fn start(product: Product, precision: Precision, device: &Device) -> Started {
    let [a, b, c] = product.operands();
    let half = precision == Precision::Bf16;
    let narrow = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
    match device {
        Device::Cpu(_) => on_host(product, precision, device, [a, b, c]),
        Device::Gpu(gpu) if half => on_gpu(product, precision, device, gpu, [&narrow(&a), &narrow(&b)]),
        Device::Gpu(gpu) => on_gpu(product, precision, device, gpu, [&a, &b]),
    }
}

fn on_host(product: Product, precision: Precision, device: &Device, [a, b, mut c]: [Vec<f32>; 3]) -> Started {
    let held = device.clone();
    let parts = vec![Part::whole(product.work(precision, 4), Unit::Gflops)];
    let (Product { m, k, n, .. }, [at, bt]) = (product, product.form.transposed());
    let narrow = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
    let stored = (precision == Precision::Bf16).then(|| (narrow(&a), narrow(&b)));
    let repeat = repeated(device, 1, move |clock| {
        let ([ar, ac], [br, bc]) = (if at { [k, m] } else { [m, k] }, if bt { [n, k] } else { [k, n] });
        let (a, b) = match &stored {
            Some((a, b)) => (Mat::bf16(a, ar, ac), Mat::bf16(b, br, bc)),
            None => (Mat::new(&a, ar, ac), Mat::new(&b, br, bc)),
        };
        let (a, b) = (if at { a.t() } else { a }, if bt { b.t() } else { b });
        clock.time(0, || gemm(held.host(), precision, a, b, MatMut::new(&mut c, m, n), false, None));
        Ok(())
    });
    Started { parts, repeat }
}

/// The result has the operands' type, as cuBLAS's has.
fn on_gpu<T: Element>(
    product: Product,
    precision: Precision,
    device: &Device,
    gpu: &Arc<Gpu>,
    [a, b]: [&[T]; 2],
) -> Started {
    let parts = vec![Part::whole(product.work(precision, size_of::<T>()), Unit::Gflops)];
    let (Product { m, k, n, form }, [at, bt]) = (product, product.form.transposed());
    let a = Tensor::from_slice(device, a, if at { [k, m] } else { [m, k] });
    let b = Tensor::from_slice(device, b, if bt { [n, k] } else { [k, n] });
    let c = Out::new(device, Spec { shape: [m, n].into(), dtype: T::DTYPE });
    let form = match form {
        Form::Nt => kernels::Form::Nt,
        Form::Nn => kernels::Form::Nn,
        Form::Tn => kernels::Form::Tn,
    };
    let gpu = Arc::clone(gpu);
    let repeat = repeated(device, 1, move |clock| {
        clock.time(0, || launch::Product::new(form, [m, n, k], [&a, &b, &c]).launch(&gpu));
        Ok(())
    });
    Started { parts, repeat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_21_shapes_and_names_that_differ() {
        let cases = cases(&shapes(), Form::Nt, Precision::F32);
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 21);
        assert!(names.contains(&"1024x768x50304 nt f32"), "{names:?}");
    }

    #[test]
    fn shapes_are_three_sizes() {
        assert_eq!(parse_shape("2x30x400").unwrap(), [2, 30, 400]);
        for wrong in ["", "2x3", "2x3x4x5", "2x3x", "2x0x3", "axbxc", "2x3x9999999", "-1x2x3"] {
            let error = parse_shape(wrong).unwrap_err();
            assert!(error.to_string().contains("--shape") && error.exit_code() == 2, "{wrong}: {error}");
        }
    }
}
