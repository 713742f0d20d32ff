//! kiln's kernels: their texts, and for given sizes the variant that is run and the blocks that run it.
//!
//! A kernel file has parameters (`//@ param`), among them types and tile sizes; a file with values for them is a
//! [`Variant`], one module of the device. What a kernel computes, and its arguments, stand at the top of its file.

use super::driver::Grid;
use super::ptx::{Module, Names, Value};
use crate::error::Result;
use arrayvec::ArrayVec;
use std::fmt;

macro_rules! files {
    ($($name:literal),*) => {
        /// All kernel files: name and text.
        pub const FILES: [(&str, &str); [$($name),*].len()] =
            [$(($name, include_str!(concat!("../../kernels/", $name)))),*];
    };
}
files!(
    "activation.ptx",
    "adamw.ptx",
    "attention.ptx",
    "augment.ptx",
    "blend.ptx",
    "cast.ptx",
    "codes.ptx",
    "conv.ptx",
    "dots.ptx",
    "dropout.ptx",
    "elementwise.ptx",
    "embedding.ptx",
    "gemm.ptx",
    "kl.ptx",
    "limits.ptx",
    "loss.ptx",
    "norm.ptx",
    "picture_norm.ptx",
    "policy.ptx",
    "reduce.ptx",
    "resample.ptx",
    "rope.ptx",
    "sample.ptx",
    "sattention.ptx",
    "sgemm.ptx",
    "slope.ptx",
    "spectral.ptx",
    "sphere.ptx",
    "split.ptx",
    "study.ptx",
    "swiglu.ptx",
    "xent.ptx"
);

/// A float type that kernels read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Float {
    F32,
    Bf16,
    F16,
}

impl Float {
    /// As kernels call it.
    pub fn name(self) -> &'static str {
        match self {
            Float::F32 => "f32",
            Float::Bf16 => "bf16",
            Float::F16 => "f16",
        }
    }

    /// Its bytes.
    pub fn bytes(self) -> usize {
        if self == Float::F32 { 4 } else { 2 }
    }

    /// Elements of an access: of 16 bytes if rows of `columns` elements are multiples of that, else 1.
    fn vector(self, columns: usize) -> i64 {
        if (columns * self.bytes()).is_multiple_of(16) { 16 / self.bytes() as i64 } else { 1 }
    }

    /// The same beside arrays of f32, where 8 halves would meet two accesses of 16 bytes, each of every second sector.
    fn vector_beside_f32(self, columns: usize) -> i64 {
        self.vector(columns).min(4)
    }
}

/// The value of a kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// A number.
    Number(i64),
    /// A word.
    Word(&'static str),
}

impl From<i64> for Setting {
    fn from(x: i64) -> Setting {
        Setting::Number(x)
    }
}

impl From<&'static str> for Setting {
    fn from(x: &'static str) -> Setting {
        Setting::Word(x)
    }
}

impl From<Float> for Setting {
    fn from(x: Float) -> Setting {
        Setting::Word(x.name())
    }
}

/// A kernel file with values for its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The file.
    pub file: &'static str,
    /// The parameters that are not what the file says.
    pub settings: ArrayVec<(&'static str, Setting), 9>,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Number(x) => x.fmt(f),
            Setting::Word(x) => x.fmt(f),
        }
    }
}

/// As `cast.ptx T=f32 TY=bf16 V=4`.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file)?;
        self.settings.iter().try_for_each(|(name, setting)| write!(f, " {name}={setting}"))
    }
}

impl Variant {
    /// `file` with these parameters.
    pub fn new(file: &'static str, settings: impl IntoIterator<Item = (&'static str, Setting)>) -> Variant {
        Variant { file, settings: settings.into_iter().collect() }
    }

    /// The text of the file; empty where there is none of that name.
    pub fn text(&self) -> &'static str {
        FILES.iter().find(|(name, _)| *name == self.file).map_or("", |(_, text)| text)
    }

    /// The module: expanded and parsed.
    ///
    /// # Errors
    /// The file has no such parameter, or a value does not suit it.
    pub fn module(&self) -> Result<Module> {
        self.module_of(self.text())
    }

    /// The module that another text of the file makes.
    ///
    /// # Errors
    /// As of [`module`](Variant::module).
    pub fn module_of(&self, text: &str) -> Result<Module> {
        let value = |setting: &Setting| match setting {
            Setting::Number(x) => Value::Int(*x),
            Setting::Word(x) => Value::from(*x),
        };
        let names: Names = self.settings.iter().map(|(name, setting)| ((*name).to_owned(), value(setting))).collect();
        Module::new(self.file, text, &names)
    }
}

/// What is run, and by how many threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module.
    pub variant: Variant,
    /// The kernel in it.
    pub entry: &'static str,
    /// Its threads.
    pub grid: Grid,
}

fn plan(
    file: &'static str,
    entry: &'static str,
    settings: impl IntoIterator<Item = (&'static str, Setting)>,
    grid: Grid,
) -> Plan {
    Plan { variant: Variant::new(file, settings), entry, grid }
}

fn blocks(n: usize, of: usize) -> u32 {
    n.div_ceil(of).max(1) as u32
}

/// A grid of `blocks` blocks.
fn grid(blocks: [u32; 3], threads: u32) -> Grid {
    Grid { blocks, threads: [threads, 1, 1], shared: 0 }
}

/// What measures the most that a GPU does, see kernels/limits.ptx: `blocks` blocks.
pub fn limits(entry: &'static str, blocks: u32) -> Plan {
    plan("limits.ptx", entry, [], Grid::new(blocks, 256))
}

/// A kernel of a flat file (elementwise, activation, swiglu, dropout) on `n` elements of `t`; `aligned` where all addresses
/// are multiples of 16 bytes.
pub fn flat(file: &'static str, entry: &'static str, t: Float, n: usize, aligned: bool) -> Plan {
    let v = if aligned { 16 / t.bytes() as i64 } else { 1 };
    plan(file, entry, [("T", t.into()), ("V", v.into())], Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256))
}

/// A kernel that does the same with each of `n` elements in rows of `columns`, a vector never in two rows.
pub fn by_rows(file: &'static str, entry: &'static str, t: Float, n: usize, columns: usize) -> Plan {
    let v = t.vector(columns);
    plan(file, entry, [("T", t.into()), ("V", v.into())], Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256))
}

/// `F_fwd` of loss.ptx: a sum for each row.
pub fn loss(entry: &'static str, t: Float, rows: usize, columns: usize) -> Plan {
    let settings = [("T", t.into()), ("V", t.vector(columns).into())];
    plan("loss.ptx", entry, settings, Grid::new(blocks(rows, 4), 128))
}

/// `F_bwd` of loss.ptx, for `n` elements.
pub fn loss_backward(entry: &'static str, t: Float, n: usize, columns: usize) -> Plan {
    by_rows("loss.ptx", entry, t, n, columns)
}

/// `kl_total`.
pub fn kl_total() -> Plan {
    plan("kl.ptx", "kl_total", [], Grid::new(1, 32))
}

/// `codes_nearest` of so many rows.
pub fn codes_nearest(t: Float, rows: usize) -> Plan {
    plan("codes.ptx", "codes_nearest", [("T", t.into())], Grid::new(blocks(rows, 4), 128))
}

/// `codes_move` of `codes` rows of `columns`.
pub fn codes_move(t: Float, codes: usize, columns: usize) -> Plan {
    plan("codes.ptx", "codes_move", [("T", t.into())], grid([codes as u32, blocks(columns, 128), 1], 128))
}

/// `cast_fwd` of `n` elements.
pub fn cast(from: Float, to: Float, n: usize, aligned: bool) -> Plan {
    let v = match () {
        () if !aligned => 1,
        () if from == Float::F32 || to == Float::F32 => 4,
        () => 8,
    };
    let settings = [("T", from.into()), ("TY", to.into()), ("V", v.into())];
    plan("cast.ptx", "cast_fwd", settings, Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256))
}

/// `adamw` on `n` parameters with gradients of `t` and a copy of the weights in `shadow`.
pub fn adamw(t: Float, shadow: Float, n: usize, aligned: bool) -> Plan {
    let v = if aligned { 4 } else { 1 };
    let settings = [("T", t.into()), ("TS", shadow.into()), ("V", v.into())];
    plan("adamw.ptx", "adamw", settings, Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256))
}

/// `clip`.
pub fn clip() -> Plan {
    plan("adamw.ptx", "clip", [], Grid::new(1, 32))
}

/// The widest row that `norm.ptx` takes.
pub const NORM_LIMIT: usize = 8192;

/// W, N and V of `norm.ptx` for rows of `columns` elements: few warps a row, and few vectors a thread where a thread keeps
/// four numbers for each element.
fn norm_shape(t: Float, columns: usize, most: usize) -> (usize, usize, i64) {
    let v = t.vector_beside_f32(columns);
    let vectors = columns.div_ceil(32 * v as usize);
    let warps = [1, 4, 8].into_iter().find(|w| vectors.div_ceil(*w) * v as usize <= most).unwrap_or(8);
    (warps, vectors.div_ceil(warps), v)
}

/// `layernorm_fwd` or `rmsnorm_fwd`, as `entry` says.
pub fn norm_forward(entry: &'static str, t: Float, rows: usize, columns: usize) -> Plan {
    let (w, n, v) = norm_shape(t, columns, 48);
    let settings = [("T", t.into()), ("V", v.into()), ("W", (w as i64).into()), ("N", (n as i64).into())];
    plan("norm.ptx", entry, settings, Grid::new(blocks(rows, w.max(4) / w), 32 * w.max(4) as u32))
}

/// `layernorm_bwd` or `rmsnorm_bwd`, with runs of `run` rows; the gradients of gain and bias have a row for each run.
pub fn norm_backward(entry: &'static str, t: Float, rows: usize, columns: usize, run: usize) -> Plan {
    let (w, n, v) = norm_shape(t, columns, 16);
    let settings = [("T", t.into()), ("V", v.into()), ("W", (w as i64).into()), ("N", (n as i64).into())];
    let per_block = w.max(4) / w * run;
    plan("norm.ptx", entry, settings, Grid::new(blocks(rows, per_block), 32 * w.max(4) as u32))
}

/// `norm_moments` over so many segments and runs of pixels of `columns` channels; see `picture_norm.ptx`.
pub fn norm_moments(t: Float, runs: [usize; 2], columns: usize) -> Plan {
    norm_runs("norm_moments", t, runs, columns)
}

/// `norm_sums`, over the same.
pub fn norm_sums(t: Float, runs: [usize; 2], columns: usize) -> Plan {
    norm_runs("norm_sums", t, runs, columns)
}

fn norm_runs(entry: &'static str, t: Float, [segments, runs]: [usize; 2], columns: usize) -> Plan {
    let v = t.vector_beside_f32(columns);
    let blocks = [blocks(columns, 128 * v as usize), runs as u32, segments as u32];
    plan("picture_norm.ptx", entry, [("T", t.into()), ("V", v.into())], grid(blocks, 128))
}

/// `norm_fold` or `norm_means` of so many groups of channels.
pub fn norm_fold(entry: &'static str, groups: usize) -> Plan {
    plan("picture_norm.ptx", entry, [], Grid::new(blocks(groups, 128), 128))
}

/// `norm_given` of so many channels.
pub fn norm_given(columns: usize) -> Plan {
    norm_fold("norm_given", columns)
}

/// `norm_apply` or `norm_back` of `n` elements in pixels of `columns`.
pub fn norm_each(entry: &'static str, t: Float, n: usize, columns: usize) -> Plan {
    let v = t.vector_beside_f32(columns);
    let grid = Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256);
    plan("picture_norm.ptx", entry, [("T", t.into()), ("V", v.into())], grid)
}

/// Rows of a run of column sums and of norms' gradients, a function of the rows alone: about 1024 runs, of 8 rows at least.
pub fn run_of_rows(rows: usize) -> usize {
    rows.div_ceil(1024).next_power_of_two().max(8)
}

/// `column_sums` over runs of `run` rows.
pub fn column_sums(t: Float, rows: usize, columns: usize, run: usize) -> Plan {
    let v = t.vector_beside_f32(columns);
    let settings = [("T", t.into()), ("V", v.into())];
    plan("reduce.ptx", "column_sums", settings, grid([blocks(columns, 128 * v as usize), blocks(rows, run), 1], 128))
}

/// `sum_blocks`.
pub fn sum_blocks(columns: usize) -> Plan {
    plan("reduce.ptx", "sum_blocks", [], Grid::new(blocks(columns, 32), 256))
}

/// `sum_fwd`: a sum for each row.
pub fn row_sums(t: Float, rows: usize, columns: usize) -> Plan {
    let settings = [("T", t.into()), ("V", t.vector(columns).into())];
    plan("reduce.ptx", "sum_fwd", settings, Grid::new(blocks(rows, 4), 128))
}

/// `row_dots` of a matrix of `t` with what `tb` says.
pub fn row_dots([t, tb]: [Float; 2], rows: usize, columns: usize) -> Plan {
    dots("row_dots", [t, tb], columns, Grid::new(blocks(rows, 4), 128))
}

/// `column_dots`, of the same.
pub fn column_dots([t, tb]: [Float; 2], columns: usize) -> Plan {
    let v = t.vector_beside_f32(columns) as usize;
    dots("column_dots", [t, tb], columns, Grid::new(blocks(columns, 128 * v), 128))
}

/// `augment_draw` for so many pictures.
pub fn augment_draw(pictures: usize) -> Plan {
    plan("augment.ptx", "augment_draw", [], Grid::new(blocks(pictures, 128), 128))
}

/// `augment_mix` or `augment_gather` from pictures of one type to those of another.
pub fn augment(entry: &'static str, [from, to]: [Float; 2], pixels: usize) -> Plan {
    let grid = Grid::new(blocks(pixels, 256).min(1 << 16), 256);
    plan("augment.ptx", entry, [("T", from.into()), ("TO", to.into())], grid)
}

/// `blend_draw` for so many examples.
pub fn blend_draw(rows: usize) -> Plan {
    plan("blend.ptx", "blend_draw", [], Grid::new(blocks(rows, 128), 128))
}

/// `spectral_unit`.
pub fn spectral_unit() -> Plan {
    plan("spectral.ptx", "spectral_unit", [], Grid::new(1, 32))
}

/// `spectral_fwd` or `spectral_bwd` of `n` elements in rows of `columns`.
pub fn spectral(entry: &'static str, t: Float, n: usize, columns: usize) -> Plan {
    let v = t.vector_beside_f32(columns);
    let grid = Grid::new(blocks(n, 256 * v as usize).min(1 << 16), 256);
    plan("spectral.ptx", entry, [("T", t.into()), ("V", v.into())], grid)
}

fn dots(entry: &'static str, [t, tb]: [Float; 2], columns: usize, grid: Grid) -> Plan {
    let v = t.vector_beside_f32(columns);
    plan("dots.ptx", entry, [("T", t.into()), ("TB", tb.into()), ("V", v.into())], grid)
}

/// `sum_bwd`.
pub fn row_sums_backward(t: Float, rows: usize, columns: usize) -> Plan {
    let v = t.vector(columns);
    let grid = Grid::new(blocks(rows * columns, 256 * v as usize).min(1 << 16), 256);
    plan("reduce.ptx", "sum_bwd", [("T", t.into()), ("V", v.into())], grid)
}

/// `sum_partial` or `square_partial` of `n` elements; the number of blocks, and so of partial sums, depends on n alone.
pub fn partial_sums(entry: &'static str, t: Float, n: usize, aligned: bool) -> Plan {
    let v = if aligned { 16 / t.bytes() as i64 } else { 1 };
    plan("reduce.ptx", entry, [("T", t.into()), ("V", v.into())], Grid::new(blocks(n, 8192).min(1024), 256))
}

/// `policy_fwd` or `value_fwd` of `n` tokens.
pub fn token_sums(entry: &'static str, t: Float, n: usize, aligned: bool) -> Plan {
    let like = partial_sums(entry, t, n, aligned);
    plan("policy.ptx", entry, like.variant.settings, like.grid)
}

/// `sum_total`.
pub fn total() -> Plan {
    plan("reduce.ptx", "sum_total", [], Grid::new(1, 32))
}

/// `xent`, `token_logprob_fwd` or `token_logprob_bwd` on rows that lie `pitch` elements apart.
pub fn logits(entry: &'static str, t: Float, rows: usize, pitch: usize) -> Plan {
    plan("xent.ptx", entry, [("T", t.into()), ("V", t.vector(pitch).into())], Grid::new(rows as u32, 256))
}

/// `xent_norm` or `xent_total`.
pub fn xent_sum(entry: &'static str) -> Plan {
    plan("xent.ptx", entry, [], Grid::new(1, 256))
}

/// `embedding_fwd` or `embedding_bwd` of `rows` tokens, or `position_bwd` of so many positions, with rows of `columns`
/// elements of `t` and tables of `table`.
pub fn embedding(entry: &'static str, t: Float, table: Float, rows: usize, columns: usize) -> Plan {
    let v = if columns.is_multiple_of(4) { 4 } else { 1 };
    let settings = [("T", t.into()), ("TE", table.into()), ("V", v.into())];
    plan("embedding.ptx", entry, settings, grid([blocks(columns, 128 * v as usize), rows as u32, 1], 128))
}

/// `rope_fwd` of rows of `columns` elements in heads of `dim`.
pub fn rope(t: Float, rows: usize, columns: usize, dim: usize) -> Plan {
    let v = t.vector_beside_f32(columns).min(t.vector(dim / 2));
    let settings = [("T", t.into()), ("D", (dim as i64).into()), ("V", v.into())];
    plan("rope.ptx", "rope_fwd", settings, Grid::new(rows as u32, 128))
}

/// How a product reads its operands; see `gemm.ptx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A·Bᵀ: A (M, K), B (N, K).
    Nt,
    /// A·B: A (M, K), B (K, N).
    Nn,
    /// Aᵀ·B: A (K, M), B (K, N).
    Tn,
}

impl Form {
    fn settings(self) -> [(&'static str, Setting); 2] {
        let (a, b) = match self {
            Form::Nt => (0, 1),
            Form::Nn => (0, 0),
            Form::Tn => (1, 0),
        };
        [("TA", a.into()), ("TB", b.into())]
    }
}

/// On what a product's operands are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Tensor cores, in bf16.
    Bf16,
    /// Tensor cores, in f16.
    F16,
    /// Tensor cores: f32 in memory, rounded to 10 bits of mantissa.
    Tf32,
    /// f32, exactly as the CPU does it; `true` where all rows are multiples of 16 bytes.
    F32(bool),
}

/// `gemm` of (M, K) by (K, N) with results of type `to` and the activation `f` (as `activation.ptx` names it, or `none`).
pub fn gemm(unit: Unit, form: Form, to: Float, f: &'static str, [m, n, batch]: [usize; 3]) -> Plan {
    let mut settings: ArrayVec<(&'static str, Setting), 9> = form.settings().into_iter().collect();
    settings.extend([("TC", to.into()), ("F", f.into())]);
    let tiles = |bm: usize, bn: usize| [blocks(m, bm) * blocks(n, bn), 1, batch as u32];
    // A tile is worth its size if there are enough of them for most GPUs' multiprocessors.
    let enough = |bm: usize, bn: usize| m.div_ceil(bm) * n.div_ceil(bn) * batch >= 96;
    if let Unit::F32(aligned) = unit {
        let per_thread = if enough(128, 128) { 8 } else { 4 };
        let v = if aligned { 4 } else { 1 };
        settings.extend([("TM", per_thread.into()), ("TN", per_thread.into()), ("V", Setting::Number(v))]);
        let side = 16 * per_thread as usize;
        return plan("sgemm.ptx", "gemm", settings, grid(tiles(side, side), 256));
    }
    let (name, bytes) = match unit {
        Unit::Tf32 => ("tf32", 4),
        Unit::F16 => ("f16", 2),
        _ => ("bf16", 2),
    };
    // Warps along N, fragments of a warp, buffers: 128 x 256, 128 x 128 or 64 x 64.
    let (wn, mi, nj, stages) = match () {
        () if bytes == 2 && enough(128, 256) => (4, 4, 8, 4),
        () if bytes == 2 && enough(128, 128) => (2, 4, 8, 3),
        () if enough(128, 128) => (4, 4, 4, 3),
        () => (2, 2, 4, 4),
    };
    settings.extend([("T", Setting::Word(name)), ("WN", Setting::Number(wn))]);
    settings.extend([("MI", Setting::Number(mi)), ("NJ", Setting::Number(nj)), ("STAGES", Setting::Number(stages))]);
    let (bm, bn) = (32 * mi as usize, 8 * (wn * nj) as usize);
    let shared = stages as usize * (bm + bn) * 32 * bytes;
    plan("gemm.ptx", "gemm", settings, Grid { shared, ..grid(tiles(bm, bn), 64 * wn as u32) })
}

/// In how many runs over K a product of halves is summed whose tiles are too few for a GPU: a power of two that divides K into
/// runs of 256 at least, a function of the sizes alone.
pub fn runs(m: usize, n: usize, k: usize) -> usize {
    let tiles = m.div_ceil(128) * n.div_ceil(128);
    let fits = |runs: usize| tiles * runs <= 256 && k / runs >= 256 && k.is_multiple_of(64 * runs);
    [16, 8, 4, 2].into_iter().find(|runs| fits(*runs)).unwrap_or(1)
}

/// A kernel of `conv.ptx` with the activation `f`, for results of `rows` by `columns` and so many phases or runs; large
/// pictures have `c` channels, small ones `o`, 1 where addresses are no multiples of 16 bytes.
pub fn conv(
    entry: &'static str,
    t: Float,
    f: &'static str,
    [c, o]: [usize; 2],
    [rows, columns, z]: [usize; 3],
) -> Plan {
    let settings = [("T", t.into()), ("F", f.into()), ("VC", t.vector(c).into()), ("VO", t.vector(o).into())];
    plan("conv.ptx", entry, settings, grid([blocks(rows, 64), blocks(columns, 64), z as u32], 256))
}

/// Pixels of a run of `conv_weigh`, a function of the sizes alone: about 256 blocks, of 256 pixels at least.
pub fn run_of_pixels(pixels: usize, o: usize, k: usize) -> usize {
    let tiles = (blocks(o, 64) * blocks(k, 64)) as usize;
    pixels.div_ceil((256 / tiles).max(1)).next_multiple_of(256)
}

/// The sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// B.
    pub batch: usize,
    /// T.
    pub time: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head: 32, 64 or 128 in halves, any up to 128 in f32.
    pub dim: usize,
}

/// The heads that attention has kernels for, in words.
pub const HEADS: &str = "heads have 32, 64 or 128 channels in bf16, and up to 128 in f32";

/// Whether attention has kernels for heads of `dim` channels of `t`.
pub fn attends(t: Float, dim: usize) -> bool {
    if t == Float::F32 { dim <= 128 } else { [32, 64, 128].contains(&dim) }
}

/// A kernel of `attention.ptx` or, for f32, of `sattention.ptx`.
pub fn attention(entry: &'static str, t: Float, heads: Heads) -> Plan {
    let Heads { batch, time, dim, .. } = heads;
    let half = t != Float::F32;
    let padded = dim.next_power_of_two().max(32);
    // Rows of a block, and bytes of shared memory forward and backward.
    let (rows, threads, shared) = match half {
        true => (64, 128, [5 * 128 * dim, 6 * 128 * dim + 1024]),
        false => {
            let r = if dim > 64 { 32 } else { 64 };
            (r, 256, [4 * (2 * r * padded + r * r), 4 * (4 * r * padded + 2 * r * r)])
        }
    };
    let across =
        |heads: usize, shared| Grid { shared, ..grid([blocks(time, rows), heads as u32, batch as u32], threads) };
    let grid = match entry {
        "attention_fwd" => across(heads.heads, shared[0]),
        "attention_bwd_q" => across(heads.heads, shared[1]),
        "attention_bwd_kv" => across(heads.kv_heads, shared[1]),
        // attention_delta: 8 elements a thread, or a row a warp.
        _ => {
            let rows = batch * time * heads.heads;
            Grid { shared: 16, ..Grid::new(if half { blocks(rows * dim / 8, 128) } else { blocks(rows, 4) }, 128) }
        }
    };
    let dim = ("D", Setting::Number(dim as i64));
    match half {
        true => plan("attention.ptx", entry, [("T", t.into()), dim], grid),
        false => plan("sattention.ptx", entry, [dim], grid),
    }
}
