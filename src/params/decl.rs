//! What models ask for: parameters before they exist, and how files hold them.

use crate::tensor::{DType, Shape};
use std::ops::Range;

/// What a parameter is, as far as optimizers care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A matrix of a linear layer.
    Matrix,
    /// A table of embeddings, or a head.
    Embedding,
    /// A gain or a bias.
    Vector,
    /// What a layer keeps from pass to pass, as running statistics; held in f32, never trained.
    Buffer,
}

/// How a parameter is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// In f32, with a gradient and moments.
    Train,
    /// In f32, its values only.
    Frozen,
    /// In bf16, its values only: each is the nearest to the one that is set.
    FrozenBf16,
    /// Its values only, matrices and embeddings in 8 bits with a scale for each row ([`q8`](crate::cpu::q8)), vectors in f32.
    FrozenQ8,
    /// Its values only, matrices in 4 bits with scales for 32 columns of a row ([`q4`](crate::cpu::q4)), embeddings in 8 bits,
    /// vectors in f32.
    FrozenQ4,
}

impl Hold {
    /// The type in which parameters of a kind are held.
    pub fn dtype(self, kind: Kind) -> DType {
        match self {
            _ if kind == Kind::Buffer => DType::F32,
            Hold::FrozenBf16 => DType::Bf16,
            Hold::FrozenQ4 if kind == Kind::Matrix => DType::Q4,
            Hold::FrozenQ8 | Hold::FrozenQ4 if kind != Kind::Vector => DType::Q8,
            _ => DType::F32,
        }
    }
}

/// The initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform between minus this and this.
    Uniform(f32),
    /// Normal with this mean and this standard deviation.
    Around(f32, f32),
}

/// A parameter before it exists: what a model asks for.
#[derive(Clone, Debug)]
pub struct Decl {
    /// The name in messages, and in checkpoints where it is stored whole.
    pub name: String,
    /// The lengths of the axes; linear weights are (out, in).
    pub shape: Shape,
    /// What it is.
    pub kind: Kind,
    /// The values it starts with.
    pub init: Init,
    /// The rows of the matrices that lie in it, one below the other, as packed queries, keys and values do.
    pub parts: Vec<usize>,
    /// Its learning rate, as a multiple of the optimizer's.
    pub rate: f32,
    /// The network that it belongs to, where several are trained in turns; see [`Params::focus`](super::Params::focus).
    pub net: u8,
    /// How files hold it.
    pub stored: Stored,
}

/// How files hold a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it lies in memory.
    Whole,
    /// A matrix (r, c) as (c, r).
    Transposed,
    /// Each part as a tensor of its own, under these names.
    Parts(Vec<String>),
}

/// A tensor of a file: a parameter, or a part of it, which is a range of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name in the file, as Hugging Face writes it.
    pub name: String,
    /// The first element within the parameter.
    pub start: usize,
    /// The lengths of the axes in memory.
    pub shape: Shape,
    /// Whether the file holds a matrix (r, c) as (c, r).
    pub transposed: bool,
}

/// A matrix in a group's arena, for updates that treat it as one; a vector is a single row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its first element in the arena.
    pub start: usize,
    /// Rows.
    pub rows: usize,
    /// Columns; rows lie without gaps.
    pub cols: usize,
}

impl Matrix {
    /// The matrix from element `start` on that a parameter of this shape is; a convolution's (O, kh, kw, C) is O by the rest.
    pub(super) fn of(start: usize, shape: &Shape) -> Matrix {
        let rows = if shape.len() > 1 { shape[0] } else { 1 };
        Matrix { start, rows, cols: shape.numel() / rows.max(1) }
    }
}

impl Decl {
    /// A parameter of one part, stored as it is.
    pub fn new(name: impl Into<String>, shape: impl Into<Shape>, kind: Kind, init: Init) -> Decl {
        let shape = shape.into();
        let parts = vec![shape.first().copied().unwrap_or(1)];
        Decl { name: name.into(), shape, kind, init, parts, rate: 1.0, net: 0, stored: Stored::Whole }
    }

    /// The first element and the shape of each part.
    pub(super) fn slices(&self) -> impl Iterator<Item = (usize, Shape)> {
        let row = self.shape.numel() / self.shape.first().copied().unwrap_or(1).max(1);
        let mut end = 0;
        self.parts.iter().map(move |&rows| {
            let start = end;
            end += rows * row;
            (start, self.shape.with_first(rows))
        })
    }

    /// The tensors of files that hold it.
    pub fn images(&self) -> Vec<Image> {
        let whole = |transposed| vec![Image { name: self.name.clone(), start: 0, shape: self.shape, transposed }];
        match &self.stored {
            Stored::Whole => whole(false),
            Stored::Transposed => whole(true),
            Stored::Parts(names) => {
                let image = |(name, (start, shape)): (&String, _)| Image {
                    name: name.clone(),
                    start,
                    shape,
                    transposed: false,
                };
                names.iter().zip(self.slices()).map(image).collect()
            }
        }
    }
}

impl Image {
    /// Its elements within the parameter.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.shape.numel()
    }
}
