//! Shapes, dtypes, tensors and the arenas that hold parameters.
//!
//! A [`Tensor`] is read-only, contiguous and row-major: a shared buffer, an offset, a shape, a dtype. What is being
//! written is an [`Out`], which owns its range alone and freezes into a tensor. There are no strides: a transpose is an
//! argument of the product that wants it.

use crate::cpu::convert::ConvertTo;
use crate::cpu::gemm::Mat;
use crate::cpu::q4::{self, Q4};
use crate::cpu::q8::{self, Q8};
use crate::cpu::{Cpu, chunks};
use crate::device::{Device, Handle, Ptr};
use arrayvec::ArrayVec;
use half::bf16;
use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

/// The most axes a shape can have.
pub const MAX_RANK: usize = 5;

/// The lengths of a tensor's axes, outermost first. Inline: no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape with the given axes, at most [`MAX_RANK`].
    pub fn new(dims: &[usize]) -> Shape {
        assert!(dims.len() <= MAX_RANK, "a shape has at most {MAX_RANK} axes, not {}", dims.len());
        let mut shape = Shape { dims: [1; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.iter().product()
    }

    /// The length of the last axis; 1 for a scalar.
    pub fn last_dim(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }

    /// The shape as a matrix: all axes but the last one together, and the last.
    pub fn as_matrix(&self) -> (usize, usize) {
        let columns = self.last_dim();
        (self.iter().rev().skip(1).product(), columns)
    }

    /// The same axes but for the first, which has length `n`.
    pub fn with_first(mut self, n: usize) -> Shape {
        assert!(self.rank > 0, "a scalar has no first axis");
        self.dims[0] = n;
        self
    }

    /// The same axes but for the last, which has length `n`.
    pub fn with_last(mut self, n: usize) -> Shape {
        assert!(self.rank > 0, "a scalar has no last axis");
        self.dims[self.rank as usize - 1] = n;
        self
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(")?;
        for (i, n) in self.iter().enumerate() {
            write!(f, "{}{n}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, ")")
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Signed 32-bit integers: token ids, labels.
    I32,
    /// Bytes: pixels, masks.
    U8,
    /// Weights in 8 bits, with a scale for each row; see [`q8`].
    Q8,
    /// Weights in 4 bits, with scales for 32 columns of each row; see [`q4`].
    Q4,
}

impl DType {
    /// Bytes an element, scales left out.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::U8 | DType::Q8 | DType::Q4 => 1,
        }
    }

    /// The name that recipes and messages use.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Q8 => "int8",
            DType::Q4 => "int4",
        }
    }
}

/// A Rust type that is a [`DType`].
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The dtype.
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for half::bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

/// A shape and a dtype: what an operation says of its results before they exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The lengths of the axes.
    pub shape: Shape,
    /// The type of the elements.
    pub dtype: DType,
}

impl Spec {
    /// An f32 tensor of this shape.
    pub fn f32(shape: impl Into<Shape>) -> Spec {
        Spec { shape: shape.into(), dtype: DType::F32 }
    }

    /// Bytes of a tensor of this kind.
    pub fn bytes(&self) -> usize {
        let (rows, cols) = self.shape.as_matrix();
        match self.dtype {
            DType::Q8 => q8::bytes(rows, cols),
            DType::Q4 => q4::bytes(rows, cols),
            dtype => rows * cols * dtype.size(),
        }
    }
}

/// A read-only, contiguous, row-major array on a device. Cloning shares the buffer.
#[derive(Clone)]
pub struct Tensor {
    block: Handle,
    offset: usize,
    spec: Spec,
}

impl Tensor {
    /// A tensor with a copy of `data`, on `device`.
    pub fn from_slice<T: Element>(device: &Device, data: &[T], shape: impl Into<Shape>) -> Tensor {
        let mut out = Out::new(device, Spec { shape: shape.into(), dtype: T::DTYPE });
        assert_eq!(data.len(), out.numel(), "as many values as elements");
        match device {
            Device::Cpu(_) => out.as_mut_slice::<T>().copy_from_slice(data),
            Device::Gpu(gpu) => gpu.upload(out.ptr(), bytemuck::cast_slice(data)),
        }
        out.freeze()
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &Shape {
        &self.spec.shape
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.spec.dtype
    }

    /// Shape and dtype.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// A tensor that stands for one of this kind whose data was let go of: it has this one's device, and reading it panics.
    pub(crate) fn hollow(&self, spec: Spec) -> Tensor {
        Tensor { block: self.block.clone(), offset: isize::MAX as usize, spec }
    }

    /// Panics where the data was let go of.
    #[inline]
    fn assert_there(&self) {
        let bytes = self.spec.bytes();
        assert!(self.offset + bytes <= self.block.bytes(), "the data of this {:?} was let go of", self.spec.shape);
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.spec.shape.numel()
    }

    /// The device that holds the data.
    pub fn device(&self) -> &Device {
        self.block.device()
    }

    /// The processor, for the CPU branch of an operation.
    ///
    /// # Panics
    /// The data is a GPU's.
    pub fn cpu(&self) -> &Cpu {
        match self.device() {
            Device::Cpu(host) => &host.cpu,
            Device::Gpu(_) => panic!("work for the CPU on a tensor that a GPU holds: {:?}", self.spec.shape),
        }
    }

    /// The address of the data, on a GPU.
    pub fn ptr(&self) -> Ptr {
        debug_assert!(matches!(self.device(), Device::Gpu(_)));
        Ptr(self.block.ptr() as u64 + self.offset as u64)
    }

    /// The elements, wherever they are: copied from a GPU once all work on them is done.
    ///
    /// # Panics
    /// The dtype is another one.
    pub fn read<T: Element>(&self) -> Cow<'_, [T]> {
        match self.device() {
            Device::Cpu(_) => Cow::Borrowed(self.as_slice()),
            Device::Gpu(gpu) => {
                assert_eq!(
                    self.spec.dtype,
                    T::DTYPE,
                    "a {} tensor read as {}",
                    self.spec.dtype.name(),
                    T::DTYPE.name()
                );
                self.assert_there();
                let mut data = vec![T::zeroed(); self.numel()];
                gpu.download(bytemuck::cast_slice_mut(&mut data), self.ptr());
                Cow::Owned(data)
            }
        }
    }

    /// The elements.
    ///
    /// # Panics
    /// The dtype is another one.
    #[inline]
    pub fn as_slice<T: Element>(&self) -> &[T] {
        assert_eq!(self.spec.dtype, T::DTYPE, "a {} tensor read as {}", self.spec.dtype.name(), T::DTYPE.name());
        self.assert_there();
        assert!(matches!(self.device(), Device::Cpu(_)), "the data is on a GPU");
        // SAFETY: offset and shape are inside the block; `Tensor::view` and `Out::new` keep offsets aligned; every bit
        // pattern is a value of T; nobody writes the range while a tensor of it exists (an `Out` is alone).
        unsafe { std::slice::from_raw_parts(self.block.ptr().add(self.offset).cast(), self.numel()) }
    }

    /// The elements of an f32 tensor.
    #[inline]
    pub fn f32(&self) -> &[f32] {
        self.as_slice()
    }

    /// The elements of an i32 tensor.
    #[inline]
    pub fn i32(&self) -> &[i32] {
        self.as_slice()
    }

    /// The rows of a matrix in 8 bits.
    pub fn q8(&self) -> Q8<'_> {
        let (rows, cols) = self.spec.shape.as_matrix();
        assert_eq!(self.spec.dtype, DType::Q8, "a {} tensor read as int8", self.spec.dtype.name());
        self.assert_there();
        // SAFETY: as in `as_slice`, with the bytes of a matrix in 8 bits; every bit pattern is a byte.
        Q8::new(unsafe { std::slice::from_raw_parts(self.block.ptr().add(self.offset), self.spec.bytes()) }, rows, cols)
    }

    /// The rows of a matrix in 4 bits.
    pub fn q4(&self) -> Q4<'_> {
        let (rows, cols) = self.spec.shape.as_matrix();
        assert_eq!(self.spec.dtype, DType::Q4, "a {} tensor read as int4", self.spec.dtype.name());
        self.assert_there();
        // SAFETY: as in `as_slice`, with the bytes of a matrix in 4 bits; every bit pattern is a byte.
        Q4::new(unsafe { std::slice::from_raw_parts(self.block.ptr().add(self.offset), self.spec.bytes()) }, rows, cols)
    }

    /// The elements as a row-major matrix, f32, bf16 or in 8 or 4 bits, for a product.
    pub fn mat(&self, rows: usize, cols: usize) -> Mat<'_> {
        match self.spec.dtype {
            DType::Bf16 => Mat::bf16(self.as_slice(), rows, cols),
            DType::Q8 => Mat::q8(self.q8(), rows, cols),
            DType::Q4 => Mat::q4(self.q4(), rows, cols),
            _ => Mat::new(self.f32(), rows, cols),
        }
    }

    /// The values of narrower weights in f32; an f32 tensor as it is. For small ones: a vector of gains, a bias.
    pub fn widened(&self) -> Tensor {
        let (cpu, cols) = (self.cpu(), self.spec.shape.last_dim());
        let mut out = match self.spec.dtype {
            DType::Bf16 | DType::Q8 | DType::Q4 => Out::new(self.device(), Spec::f32(self.spec.shape)),
            _ => return self.clone(),
        };
        cpu.threads.each(chunks(out.f32_mut(), cols.max(1)), |i, y| match self.spec.dtype {
            DType::Q8 => self.q8().row(i, 0.0, y),
            DType::Q4 => self.q4().row(i, 0.0, y),
            _ => bf16::convert(cpu.simd, 0.0, &self.as_slice()[i * cols..][..cols], y),
        });
        out.freeze()
    }

    /// The same where the values have scales: what can be a left or an untransposed operand of a product.
    pub fn unscaled(&self) -> Tensor {
        if matches!(self.spec.dtype, DType::Q8 | DType::Q4) { self.widened() } else { self.clone() }
    }

    /// The one element of an f32 tensor.
    pub fn item(&self) -> f32 {
        assert_eq!(self.numel(), 1, "item: the shape is {:?}", self.spec.shape);
        self.read()[0]
    }

    /// The same elements under another shape.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(shape.numel(), self.numel(), "reshape: {:?} to {shape:?}", self.spec.shape);
        Tensor { spec: Spec { shape, dtype: self.spec.dtype }, ..self.clone() }
    }

    /// `shape.numel()` elements from element `start` on, as a tensor that shares the buffer.
    ///
    /// # Panics
    /// There are fewer elements, or they have scales.
    pub fn view(&self, start: usize, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert!(!matches!(self.spec.dtype, DType::Q8 | DType::Q4), "a view would leave the scales behind");
        assert!(start + shape.numel() <= self.numel(), "view: {shape:?} from {start} of {:?}", self.spec.shape);
        let offset = self.offset + start * self.spec.dtype.size();
        Tensor { block: self.block.clone(), offset, spec: Spec { shape, dtype: self.spec.dtype } }
    }

    /// The buffer for writing, where nobody else holds it; else the tensor back.
    pub fn into_out(mut self) -> Result<Out, Tensor> {
        if self.block.is_unique() { Ok(Out(self)) } else { Err(self) }
    }

    /// Whether any element is NaN or infinite (f32 only).
    pub fn has_non_finite(&self) -> bool {
        self.f32().iter().any(|x| !x.is_finite())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?} {}", self.spec.shape, self.spec.dtype.name())
    }
}

/// A tensor that is being written: the only reference to its range of its buffer.
pub struct Out(Tensor);

impl Out {
    /// A buffer from the device's pool; its content is arbitrary.
    pub fn new(device: &Device, spec: Spec) -> Out {
        Out(Tensor { block: device.alloc(spec.bytes()), offset: 0, spec })
    }

    /// A buffer of zeros.
    pub fn zeros(device: &Device, spec: Spec) -> Out {
        let mut out = Out::new(device, spec);
        match device {
            Device::Cpu(host) => host.cpu.threads.each(chunks(out.bytes_mut(), 1 << 20), |_, bytes| bytes.fill(0)),
            // Buffers are whole words.
            Device::Gpu(gpu) => gpu.fill(out.ptr(), 0, spec.bytes().div_ceil(4)),
        }
        out
    }

    /// On the CPU.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.0.spec.bytes();
        // SAFETY: the range lies inside the block and this `Out` alone refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.0.block.ptr().add(self.0.offset), len) }
    }

    /// The elements, for writing.
    ///
    /// # Panics
    /// The dtype is another one.
    #[inline]
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        let dtype = self.0.spec.dtype;
        assert_eq!(dtype, T::DTYPE, "a {} tensor written as {}", dtype.name(), T::DTYPE.name());
        assert!(matches!(self.0.device(), Device::Cpu(_)), "the data is on a GPU");
        // SAFETY: as in `bytes_mut`; offsets are aligned and every bit pattern is a value of T.
        unsafe { std::slice::from_raw_parts_mut(self.0.block.ptr().add(self.0.offset).cast(), self.0.numel()) }
    }

    /// The elements of an f32 tensor, for writing.
    #[inline]
    pub fn f32_mut(&mut self) -> &mut [f32] {
        self.as_mut_slice()
    }

    /// Done writing.
    pub fn freeze(self) -> Tensor {
        self.0
    }
}

impl Deref for Out {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// One buffer cut into slots of one dtype, for the parameters of a group: slots are read as tensors or lent out for
/// writing one by one, and the whole is one flat slice for the optimizer.
///
/// Each slot starts on a multiple of [`Arena::ALIGN`] elements; the gaps hold zeros and stay so.
pub struct Arena {
    dtype: DType,
    /// The buffer as elements, or as bytes where elements have scales.
    whole: Tensor,
    slots: Vec<(usize, Shape)>,
    lent: Vec<bool>,
}

impl Arena {
    /// Slots start on multiples of this many elements, so that blocks of 64 lanes never cross two slots.
    pub const ALIGN: usize = 64;

    /// A zeroed arena with a slot for each shape, in order.
    pub fn new(device: &Device, dtype: DType, shapes: &[Shape]) -> Arena {
        let mut end = 0;
        let slots = shapes
            .iter()
            .map(|&shape| {
                let start = end;
                end = (start + Spec { shape, dtype }.bytes() / dtype.size()).next_multiple_of(Self::ALIGN);
                (start, shape)
            })
            .collect();
        let plain = if matches!(dtype, DType::Q8 | DType::Q4) { DType::U8 } else { dtype };
        let whole = Out::zeros(device, Spec { shape: [end].into(), dtype: plain }).freeze();
        Arena { dtype, whole, slots, lent: vec![false; shapes.len()] }
    }

    /// The type of the slots' elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The bytes of its buffer.
    pub fn bytes(&self) -> usize {
        self.whole.block.bytes()
    }

    /// Elements in all, gaps included.
    pub fn numel(&self) -> usize {
        self.whole.numel()
    }

    /// The elements of slot `i` in the flat slice, bytes where they have scales.
    pub fn range(&self, i: usize) -> Range<usize> {
        let (start, shape) = self.slots[i];
        start..start + Spec { shape, dtype: self.dtype }.bytes() / self.dtype.size()
    }

    /// Slot `i`, for reading.
    pub fn view(&self, i: usize) -> Tensor {
        assert!(!self.lent[i], "slot {i} is lent out for writing");
        let (start, shape) = self.slots[i];
        let offset = self.whole.offset + start * self.dtype.size();
        Tensor { block: self.whole.block.clone(), offset, spec: Spec { shape, dtype: self.dtype } }
    }

    /// Slot `i`, for writing, until it is [given back](Arena::give_back). No tensor of the slot may exist meanwhile;
    /// gradients are only read through [`whole`](Arena::whole) or after the step.
    pub(crate) fn lend(&mut self, i: usize) -> Out {
        assert!(!self.lent[i], "slot {i} is lent out already");
        let (start, shape) = self.slots[i];
        self.lent[i] = true;
        Out(self.whole.view(start, shape))
    }

    /// Takes back what [`lend`](Arena::lend) gave.
    pub(crate) fn give_back(&mut self, i: usize, out: Out) {
        assert_eq!(out.0.block.ptr(), self.whole.block.ptr(), "another arena's slot");
        assert!(self.lent[i]);
        self.lent[i] = false;
    }

    /// All elements, gaps included, for reading.
    pub fn whole(&self) -> &Tensor {
        &self.whole
    }

    /// The elements of slot `i`, for writing.
    ///
    /// # Panics
    /// A tensor of a slot is still in use.
    pub fn slot_mut<T: Element>(&mut self, i: usize) -> &mut [T] {
        let range = self.range(i);
        &mut self.whole_mut()[range]
    }

    /// All elements, gaps included, for writing.
    ///
    /// # Panics
    /// A tensor of a slot is still in use.
    pub fn whole_mut<T: Element>(&mut self) -> &mut [T] {
        assert!(self.whole.block.is_unique(), "parameters are written while tensors of them are in use");
        assert!(matches!(self.whole.device(), Device::Cpu(_)), "the data is on a GPU");
        assert_eq!(self.whole.dtype(), T::DTYPE);
        let len = self.whole.numel();
        // SAFETY: nobody else refers to the block, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.whole.block.ptr().add(self.whole.offset).cast(), len) }
    }
}

/// A few tensors, inline: an operation's inputs, results or saved values.
pub type Tensors = ArrayVec<Tensor, 8>;

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device::cpu(1).expect("a CPU")
    }

    #[test]
    fn buffers_are_recycled_by_size_at_the_same_address() {
        let device = device();
        let a = Out::new(&device, Spec::f32([10, 10])).freeze();
        let ptr = a.f32().as_ptr();
        let b = a.clone();
        drop(a);
        let c = Out::new(&device, Spec::f32([100])).freeze();
        assert_ne!(c.f32().as_ptr(), ptr, "the buffer is still in use by b");
        drop(b);
        assert_eq!(Out::new(&device, Spec::f32([4, 25])).f32().as_ptr(), ptr);
        assert_eq!(device.pool().misses(), 2);
        assert_eq!(device.pool().live_bytes(), c.spec().bytes().next_multiple_of(64));
    }

    #[test]
    fn only_a_sole_owner_may_write() {
        let a = Tensor::from_slice(&device(), &[1.0f32, 2.0], [2]);
        let b = a.clone();
        let a = a.into_out().err().expect("b shares the buffer");
        drop(b);
        let mut a = a.into_out().expect("alone");
        a.f32_mut()[0] = 5.0;
        assert_eq!(a.freeze().f32(), [5.0, 2.0]);
    }

    #[test]
    fn arena_slots_are_aligned_and_gaps_zero() {
        let mut arena = Arena::new(&device(), DType::F32, &[[3].into(), [5, 20].into(), [64].into()]);
        assert_eq!((arena.range(0), arena.range(1), arena.range(2)), (0..3, 64..164, 192..256));
        let mut slot = arena.lend(1);
        slot.f32_mut().fill(1.0);
        arena.give_back(1, slot);
        assert_eq!(arena.whole_mut::<f32>().iter().sum::<f32>(), 100.0);
        assert_eq!(arena.view(1).shape()[..], [5, 20]);
    }

    #[test]
    #[should_panic(expected = "while tensors of them are in use")]
    fn an_arena_in_use_cannot_be_written() {
        let mut arena = Arena::new(&device(), DType::F32, &[[3].into()]);
        let _view = arena.view(0);
        arena.whole_mut::<f32>();
    }

    #[test]
    #[should_panic(expected = "lent out already")]
    fn a_slot_is_lent_once() {
        let mut arena = Arena::new(&device(), DType::F32, &[[3].into()]);
        let _a = arena.lend(0);
        let _b = arena.lend(0);
    }
}
