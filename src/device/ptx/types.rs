//! The types of PTX, and which registers an instruction of a type takes.

/// Defines an enum whose members are words of PTX, and finds a member by its word.
macro_rules! words {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$member_doc:meta])* $member:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$member_doc])* $member,)* }

        impl $crate::device::ptx::types::Word for $name {
            const ALL: &'static [(Self, &'static str)] = &[$(($name::$member, $word)),*];
        }
    };
}
pub(crate) use words;

/// What is written as one word.
pub trait Word: Copy + PartialEq + 'static {
    /// All members with their words.
    const ALL: &'static [(Self, &'static str)];

    /// The member written `word`.
    fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, w)| *w == word).map(|(member, _)| *member)
    }

    /// The word of this member.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(member, _)| *member == self).map_or("", |(_, word)| word)
    }
}

words! {
    /// The type of an operand, a register or a parameter.
    #[allow(missing_docs)]
    pub enum Type {
        Pred = "pred",
        B8 = "b8", B16 = "b16", B32 = "b32", B64 = "b64",
        U8 = "u8", U16 = "u16", U32 = "u32", U64 = "u64",
        S8 = "s8", S16 = "s16", S32 = "s32", S64 = "s64",
        F16 = "f16", Bf16 = "bf16", F16x2 = "f16x2", Bf16x2 = "bf16x2",
        Tf32 = "tf32", F32 = "f32", F64 = "f64",
    }
}

/// The type of a register: what it was declared with.
pub type RegType = Type;

impl Type {
    /// Its bits; 1 for a predicate.
    pub fn bits(self) -> u32 {
        use Type::*;
        match self {
            Pred => 1,
            B8 | U8 | S8 => 8,
            B16 | U16 | S16 | F16 | Bf16 => 16,
            B32 | U32 | S32 | F16x2 | Bf16x2 | Tf32 | F32 => 32,
            B64 | U64 | S64 | F64 => 64,
        }
    }

    /// Its bytes in memory.
    pub fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    /// Whether it is an integer with a sign.
    pub fn signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether it is an integer, with or without a sign.
    pub fn integer(self) -> bool {
        self.signed() || matches!(self, Type::U8 | Type::U16 | Type::U32 | Type::U64)
    }

    /// Whether it is plain bits.
    pub fn untyped(self) -> bool {
        matches!(self, Type::B8 | Type::B16 | Type::B32 | Type::B64)
    }

    /// Whether it is a floating-point number or a pair of them.
    pub fn float(self) -> bool {
        !self.integer() && !self.untyped() && self != Type::Pred
    }

    /// The integer of twice the width.
    pub fn wider(self) -> Type {
        match self {
            Type::U16 => Type::U32,
            Type::S16 => Type::S32,
            Type::S32 => Type::S64,
            _ => Type::U64,
        }
    }

    /// Whether an operand of this type may be a register of type `reg`. Where `relaxed`, as for loads, stores and
    /// conversions, the register may be wider than an operand that is no float.
    pub fn takes(self, reg: RegType, relaxed: bool) -> bool {
        let width = self.bits() == reg.bits() || (relaxed && !self.float() && reg.bits() > self.bits());
        let kind = match (self, reg) {
            (Type::Pred, _) | (_, Type::Pred) => self == reg,
            _ if self.untyped() || reg.untyped() => true,
            // A half is often held as an integer, and a loaded integer may fill any wider register.
            _ => self.float() == reg.float(),
        };
        width && kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_fit_as_the_isa_says() {
        use Type::*;
        for (operand, reg, strict, relaxed) in [
            (U32, S32, true, true),
            (U32, B32, true, true),
            (U32, F32, false, false),
            (F32, U32, false, false),
            (F32, B32, true, true),
            (B32, F32, true, true),
            (B32, B64, false, true),
            (U8, B16, false, true),
            (F32, B64, false, false),
            (F32, F64, false, false),
            (Bf16x2, B32, true, true),
            (Pred, Pred, true, true),
            (B32, Pred, false, false),
            (Pred, B32, false, false),
        ] {
            assert_eq!((operand.takes(reg, false), operand.takes(reg, true)), (strict, relaxed), "{operand:?} {reg:?}");
        }
    }
}
