//! What an instruction does: its opcode and modifiers as one value.

use super::types::{Type, words};

words! {
    /// Integer operations on one number.
    #[allow(missing_docs)]
    pub enum Int1 { Not = "not", Neg = "neg", Abs = "abs", Brev = "brev", Clz = "clz", Popc = "popc", Bfind = "bfind", Shiftamt = "shiftamt", }
}
words! {
    /// Integer operations on two numbers.
    #[allow(missing_docs)]
    pub enum Int2 {
        Add = "add", Sub = "sub", Mul = "mul", Div = "div", Rem = "rem", Min = "min", Max = "max",
        And = "and", Or = "or", Xor = "xor", Shl = "shl", Shr = "shr",
    }
}
words! {
    /// Which bits of a product: the lower half, the upper half, all of it.
    #[allow(missing_docs)]
    pub enum Half { Lo = "lo", Hi = "hi", Wide = "wide", }
}
words! {
    /// Floating-point operations on one number.
    #[allow(missing_docs)]
    pub enum Float1 {
        Neg = "neg", Abs = "abs", Sqrt = "sqrt", Rcp = "rcp", Rsqrt = "rsqrt",
        Ex2 = "ex2", Lg2 = "lg2", Sin = "sin", Cos = "cos", Tanh = "tanh",
    }
}
words! {
    /// Floating-point operations on two numbers.
    #[allow(missing_docs)]
    pub enum Float2 {
        Add = "add", Sub = "sub", Mul = "mul", Div = "div", Min = "min", Max = "max", Copysign = "copysign",
    }
}
words! {
    /// Comparisons. The unordered ones (`equ` and so on) hold where a number is NaN.
    #[allow(missing_docs)]
    pub enum Cmp {
        Eq = "eq", Ne = "ne", Lt = "lt", Le = "le", Gt = "gt", Ge = "ge", Lo = "lo", Ls = "ls", Hi = "hi", Hs = "hs",
        Equ = "equ", Neu = "neu", Ltu = "ltu", Leu = "leu", Gtu = "gtu", Geu = "geu", Num = "num", Nan = "nan",
    }
}
words! {
    /// How truth values are combined.
    #[allow(missing_docs)]
    pub enum Logic { And = "and", Or = "or", Xor = "xor", }
}
words! {
    /// Rounding: to nearest even, to nearest away from 0 on a tie, toward 0, down, up; with `i`, to an integer.
    #[allow(missing_docs)]
    pub enum Round {
        Rn = "rn", Rna = "rna", Rz = "rz", Rm = "rm", Rp = "rp", Rni = "rni", Rzi = "rzi", Rmi = "rmi", Rpi = "rpi",
    }
}
words! {
    /// State spaces with addresses. Generic addresses hold shared memory in a window of their own.
    #[allow(missing_docs)]
    pub enum Space { Global = "global", Shared = "shared", SharedCta = "shared::cta", Generic = "generic", Param = "param", }
}
words! {
    /// Atomic operations.
    #[allow(missing_docs)]
    pub enum AtomOp {
        Add = "add", Min = "min", Max = "max", Inc = "inc", Dec = "dec", And = "and", Or = "or", Xor = "xor",
        Exch = "exch", Cas = "cas",
    }
}
words! {
    /// Where a lane of `shfl` reads.
    #[allow(missing_docs)]
    pub enum Shfl { Up = "up", Down = "down", Bfly = "bfly", Idx = "idx", }
}
words! {
    /// What a vote asks.
    #[allow(missing_docs)]
    pub enum Vote { All = "all", Any = "any", Uni = "uni", Ballot = "ballot", }
}
words! {
    /// Sums and the like over a warp.
    #[allow(missing_docs)]
    pub enum Redux { Add = "add", Min = "min", Max = "max", And = "and", Or = "or", Xor = "xor", }
}

/// What modifies arithmetic on floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatMode {
    /// How the result is rounded.
    pub round: Round,
    /// Subnormal operands and results are 0.
    pub ftz: bool,
    /// The result is clamped to 0..1, NaN to 0.
    pub sat: bool,
    /// A negative result becomes 0.
    pub relu: bool,
    /// A minimum or maximum with NaN is NaN.
    pub nan: bool,
}

impl FloatMode {
    /// To the nearest, and nothing else.
    pub const PLAIN: FloatMode = FloatMode { round: Round::Rn, ftz: false, sat: false, relu: false, nan: false };
}

/// A conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cvt {
    /// The type of the result.
    pub to: Type,
    /// The type of the operand.
    pub from: Type,
    /// How it is rounded where it must be.
    pub round: Round,
    /// Subnormal f32 are 0.
    pub ftz: bool,
    /// Clamped to the range of the result, floats to 0..1.
    pub sat: bool,
    /// Negative results are 0.
    pub relu: bool,
}

/// A load or store of `n` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where.
    pub space: Space,
    /// The type of an element.
    pub ty: Type,
    /// Elements: 1, 2 or 4.
    pub n: u8,
    /// Whether it is ordered against other blocks (`.volatile`, `.relaxed`, `.acquire`, `.release`), and so no race.
    pub strong: bool,
}

/// A product of matrix fragments, 16 × 8, summed over `k`, in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mma {
    /// The type of the factors: f16, bf16 or tf32.
    pub ty: Type,
    /// 4, 8 or 16.
    pub k: u8,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nothing that the simulator could show: a hint, a pause.
    Nop,
    /// `d = a`, for registers and predicates.
    Mov(Type),
    /// `d = {a, b, …}`, `n` parts of `bits` in all.
    Pack {
        /// Parts.
        n: u8,
        /// Bits of the whole.
        bits: u8,
    },
    /// `{d, e, …} = a`.
    Unpack {
        /// Parts.
        n: u8,
        /// Bits of the whole.
        bits: u8,
    },
    /// An address from the generic space (`to`) to another or back.
    Cvta(Space, bool),
    /// An integer operation on one number.
    Int1(Int1, Type),
    /// On two.
    Int2(Int2, Type),
    /// `a · b`, of which a half or all is kept.
    Mul(Half, Type),
    /// `a · b + c`.
    Mad(Half, Type),
    /// A logical operation on two predicates.
    Pred2(Logic),
    /// Not, of a predicate.
    PredNot,
    /// Any logical function of three words, by its truth table.
    Lop3,
    /// Four bytes picked out of eight.
    Prmt,
    /// Two words shifted as one: to the left or right, by at most 32 (`clamp`) or modulo 32.
    Shf {
        /// To the left.
        left: bool,
        /// By at most 32.
        clamp: bool,
    },
    /// A field of bits.
    Bfe(Type),
    /// A field of bits set.
    Bfi(Type),
    /// A floating-point operation on one number.
    Float1(Float1, Type, FloatMode),
    /// On two.
    Float2(Float2, Type, FloatMode),
    /// `a · b + c`, rounded once.
    Fma(Type, FloatMode),
    /// A conversion.
    Cvt(Cvt),
    /// Two f32 converted and packed.
    CvtPair(Cvt),
    /// `p = a cmp b`, and perhaps combined with a third predicate.
    Setp {
        /// The comparison.
        cmp: Cmp,
        /// Of numbers of this type.
        ty: Type,
        /// Subnormal numbers are 0.
        ftz: bool,
        /// How it is combined.
        logic: Option<Logic>,
    },
    /// `d = p ? a : b`.
    Selp(Type),
    /// `d = c >= 0 ? a : b`, the type that of `c`.
    Slct(Type, Type),
    /// A load.
    Ld(Access),
    /// A store.
    St(Access),
    /// An atomic operation that returns what was there.
    Atom(AtomOp, Type, Space),
    /// One that does not.
    Red(AtomOp, Type, Space),
    /// Bytes from global to shared memory, which land when they are waited for.
    CpAsync,
    /// Ends a group of asynchronous copies.
    CpCommit,
    /// Waits until at most so many groups are under way.
    CpWait,
    /// Waits for all.
    CpWaitAll,
    /// Loads 8 × 8 matrices of 16-bit elements into fragments, perhaps transposed.
    LdMatrix {
        /// Matrices: 1, 2 or 4.
        n: u8,
        /// Transposed.
        trans: bool,
    },
    /// Stores them.
    StMatrix {
        /// Matrices: 1, 2 or 4.
        n: u8,
        /// Transposed.
        trans: bool,
    },
    /// `d = a · b + c` on fragments.
    Mma(Mma),
    /// Another lane's value.
    Shfl(Shfl),
    /// A vote.
    Vote(Vote),
    /// The lanes that are active.
    Activemask,
    /// The lanes with the same value (`any`), or all of them if all are equal (`all`).
    Match {
        /// `match.all`.
        all: bool,
        /// The type of the values.
        ty: Type,
    },
    /// A reduction over lanes.
    Redux(Redux, Type),
    /// A jump.
    Bra,
    /// The end of a thread.
    Exit,
    /// An end with an error.
    Trap,
    /// A barrier of the block.
    Bar {
        /// Whether the warp waits.
        wait: bool,
    },
    /// A barrier of the lanes of a warp.
    BarWarp,
    /// A fence: memory is always in order here.
    Fence,
}
