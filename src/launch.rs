//! Kernels over tensors of a GPU.
//!
//! Everything here launches and returns; see [`Gpu::launch`]. Which variant of a kernel runs over which grid is
//! [`kernels`]' affair.

use crate::device::kernels::{self, Float, Form, Plan, Unit};
use crate::device::{Arg, Gpu};
use crate::error::Error;
use crate::tensor::{DType, Out, Spec, Tensor};
use arrayvec::ArrayVec;

/// A count as a kernel's argument.
pub fn n(n: usize) -> Arg {
    Arg::U32(u32::try_from(n).expect("fewer than 2^32 of them"))
}

/// 1 or 0.
pub fn flag(set: bool) -> Arg {
    Arg::U32(u32::from(set))
}

/// The address of a tensor.
pub fn at(tensor: &Tensor) -> Arg {
    Arg::Ptr(tensor.ptr())
}

/// The address of a tensor, 0 where there is none.
pub fn maybe(tensor: Option<&Tensor>) -> Arg {
    tensor.map_or(Arg::U64(0), at)
}

/// The type of a tensor's elements, as kernels know it.
///
/// # Panics
/// They are no floats.
pub fn float(tensor: &Tensor) -> Float {
    match tensor.dtype() {
        DType::F32 => Float::F32,
        DType::Bf16 => Float::Bf16,
        DType::F16 => Float::F16,
        other => panic!("no kernel computes on {}", other.name()),
    }
}

/// Whether all of these begin at multiples of 16 bytes.
pub fn aligned(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.ptr().0.is_multiple_of(16))
}

/// A kernel that does the same with each element of `tensors`, all of one shape and type. The addresses are its first
/// arguments, in order, then the number of elements, then `rest`.
pub fn flat(gpu: &Gpu, file: &'static str, entry: &'static str, tensors: &[&Tensor], rest: &[Arg]) {
    let count = tensors[0].numel();
    let mut args: ArrayVec<Arg, 12> = tensors.iter().map(|tensor| at(tensor)).collect();
    args.push(n(count));
    args.extend(rest.iter().copied());
    gpu.launch(kernels::flat(file, entry, float(tensors[0]), count, aligned(tensors)), &args);
}

/// `y = beta y + x`, with `beta` 0 or 1.
pub fn add_to(gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
    assert_eq!((y.numel(), y.dtype()), (x.numel(), x.dtype()), "sums are of one type");
    flat(gpu, "elementwise.ptx", "scale_fwd", &[x, y], &[Arg::F32(1.0), flag(beta != 0.0)]);
}

/// `y = beta y + x` between any two of the float types.
pub fn add_cast(gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
    let plan = kernels::cast(float(x), float(y), x.numel(), aligned(&[x, y]));
    gpu.launch(plan, &[at(x), at(y), n(x.numel()), flag(beta != 0.0)]);
}

/// All elements of `y` are `value`.
pub fn fill(gpu: &Gpu, y: &Tensor, value: f32) {
    flat(gpu, "elementwise.ptx", "fill", &[y], &[Arg::F32(value)]);
}

/// `y[j] = beta y[j] + Σ_i x[i][j]` in f32, for x (rows, columns): runs of rows, then the runs in order.
pub fn column_sums(gpu: &Gpu, beta: f32, y: &Tensor, x: &Tensor) {
    let (rows, c) = x.shape().as_matrix();
    let run = kernels::run_of_rows(rows);
    let partial = Out::new(x.device(), Spec::f32([rows.div_ceil(run), c]));
    gpu.launch(kernels::column_sums(float(x), rows, c, run), &[at(x), at(&partial), n(rows), n(c), n(run)]);
    sum_blocks(gpu, beta, y, &partial);
}

/// `y[j] = beta y[j] + Σ_q partial[q][j]`, in an order that the number of q sets; f32.
pub fn sum_blocks(gpu: &Gpu, beta: f32, y: &Tensor, partial: &Tensor) {
    let (runs, c) = partial.shape().as_matrix();
    gpu.launch(kernels::sum_blocks(c), &[at(partial), at(y), n(runs), n(c), flag(beta != 0.0)]);
}

/// Sums over all elements, one for each of the scalars `y`: `plan`'s kernel leaves what each of its blocks has. Its arguments are
/// `first`, an array of f64 for each sum, and `rest`.
pub fn sums(gpu: &Gpu, plan: Plan, first: &[Arg], y: &[Out], rest: &[Arg]) {
    let parts = plan.grid.blocks[0] as usize;
    // f64.
    let part = |y: &Out| Out::new(y.device(), Spec::f32([2 * parts]));
    let partial: ArrayVec<Out, 3> = y.iter().map(part).collect();
    let to = partial.iter().map(|partial| at(partial));
    let args: ArrayVec<Arg, 16> = first.iter().copied().chain(to).chain(rest.iter().copied()).collect();
    gpu.launch(plan, &args);
    for (partial, y) in partial.iter().zip(y) {
        gpu.launch(kernels::total(), &[at(partial), at(y), n(parts), n(1)]);
    }
}

/// A matrix product C = f(op(A)·op(B) + bias) + beta C; see kernels/gemm.ptx.
pub struct Product<'a> {
    /// How A and B lie.
    pub form: Form,
    /// M, N and K.
    pub size: [usize; 3],
    /// A, of B's type.
    pub a: &'a Tensor,
    /// B: f32 (each element one sequential chain over k), bf16 or f16 (on tensor cores).
    pub b: &'a Tensor,
    /// C.
    pub c: &'a Tensor,
    /// Whether C is added to.
    pub add: bool,
    /// A bias for each column, f32.
    pub bias: Option<&'a Tensor>,
    /// Where op(A)·op(B) + bias goes before f, of C's type and shape.
    pub z: Option<&'a Tensor>,
    /// The name of f.
    pub f: &'static str,
    /// From one row of A, B and C to the next.
    pub pitch: [usize; 3],
}

impl<'a> Product<'a> {
    /// C = op(A)·op(B); rows may be longer than the sizes say.
    pub fn new(form: Form, size: [usize; 3], [a, b, c]: [&'a Tensor; 3]) -> Product<'a> {
        let pitch = [a, b, c].map(|tensor| tensor.shape().last_dim());
        Product { form, size, a, b, c, add: false, bias: None, z: None, f: "none", pitch }
    }

    /// Launches it. A gradient of weights in halves, a small matrix that sums over many rows, is summed in several runs of rows at
    /// once, and then over these.
    pub fn launch(&self, gpu: &Gpu) {
        let Product { form, size: [rows, columns, k], a, b, c, pitch: ld, .. } = *self;
        let rows_are_whole = |(tensor, ld): (&Tensor, usize)| (ld * tensor.dtype().size()).is_multiple_of(16);
        let whole = aligned(&[a, b, c]) && [a, b, c].into_iter().zip(ld).all(rows_are_whole);
        let unit = match a.dtype() {
            DType::F32 => Unit::F32(whole),
            DType::F16 => Unit::F16,
            _ => Unit::Bf16,
        };
        if !whole && a.dtype() != DType::F32 {
            let problem = format!("a product in {} of rows that are no multiples of 16 bytes", a.dtype().name());
            let hint = "use widths that 8 divides, or train.precision = \"f32\"";
            return gpu.fail(Error::device(format!("{problem}: {ld:?} elements"), hint));
        }
        let plain = self.bias.is_none() && self.z.is_none() && self.f == "none" && ld[2] == columns;
        let runs = match form {
            Form::Tn if plain && a.dtype() != DType::F32 && c.dtype() == DType::F32 => kernels::runs(rows, columns, k),
            _ => 1,
        };
        let partial = (runs > 1).then(|| Out::new(c.device(), Spec::f32([runs, rows * columns])));
        let to = partial.as_deref().unwrap_or(c);
        let added = if self.add && runs == 1 { at(c) } else { Arg::U64(0) };
        let pointers = [at(a), at(b), at(to), maybe(self.bias), added, maybe(self.z)];
        let sizes = [rows, columns, k / runs, ld[0], ld[1], ld[2]].map(n);
        // From one run to the next.
        let strides = [k / runs * ld[0], k / runs * ld[1], rows * columns].map(|n| Arg::U64(n as u64));
        let args: ArrayVec<Arg, 15> = pointers.into_iter().chain(sizes).chain(strides).collect();
        gpu.launch(kernels::gemm(unit, form, float(to), self.f, [rows, columns, runs]), &args);
        if let Some(partial) = partial {
            sum_blocks(gpu, f32::from(self.add), c, &partial);
        }
    }
}
