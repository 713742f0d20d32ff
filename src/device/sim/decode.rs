//! A parsed kernel to a flat program: every operand the number of a slot, every jump the number of an instruction.
//!
//! A slot is 32 lanes of 32 bits, one of the warp's; a 64-bit register takes two. Constants, parameters and special
//! registers have slots of their own, filled when a warp starts, so that an instruction reads slots and nothing else.

use super::counters::Class;
use crate::device::ptx::code::{Access, Code, Space};
use crate::device::ptx::{Base, Entry, Inst, Module, Operand, Special, Type};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// A kernel ready to run.
#[derive(Debug)]
pub struct Program {
    /// Where it came from.
    pub module: Arc<Module>,
    /// Which of the module's entries it is.
    pub entry: usize,
    /// Its instructions.
    pub code: Vec<Ins>,
    /// Operands of instructions that have more than an [`Ins`] holds.
    pub pool: Vec<u16>,
    /// What each instruction reads and writes, for the checks.
    pub uses: Vec<Uses>,
    /// Slots of a warp.
    pub slots: usize,
    /// Predicates of a warp.
    pub preds: usize,
    /// What is filled in when a warp starts.
    pub fills: Vec<(u16, Fill)>,
    /// The name of each register, by slot; of predicates behind them.
    pub names: HashMap<u16, String>,
    /// Bytes of the smallest access to shared memory, and to global memory: the grain at which races are looked for.
    pub grain: [usize; 2],
}

/// The bit that marks a predicate among slots.
pub const PRED: u16 = 0x8000;
/// The predicate that is always true.
pub const ALWAYS: u16 = 0;
/// The predicate, and the slots, that nobody reads.
pub const SINK: u16 = 1;
/// The slot that nobody reads.
pub const SINK_SLOT: u16 = 0;

/// What a slot holds when a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// A constant.
    Word(u32),
    /// A constant in two slots.
    Wide(u64),
    /// A special register.
    Special(Special),
    /// A parameter by its offset and type, in one slot or two.
    Param(usize, Type, bool),
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Ins {
    /// What it does.
    pub code: Code,
    /// The predicate of the lanes that do it.
    pub guard: u16,
    /// A bit for each operand: its register has 64 bits.
    pub wide: u8,
    /// Whether the predicate among its operands is negated.
    pub not: bool,
    /// Whether the last operand, which may be left out, is.
    pub short: bool,
    /// All ones where the guard is negated.
    pub flip: u32,
    /// Its operands, those written first.
    pub o: [u16; 6],
    /// The offset of its address, its constant, or where a jump goes; for more than six operands, where they begin in the
    /// pool.
    pub imm: i32,
    /// A second offset or constant.
    pub imm2: i32,
}

impl Ins {
    /// Whether operand `i` is a 64-bit register.
    #[inline(always)]
    pub fn is_wide(&self, i: usize) -> bool {
        self.wide >> i & 1 == 1
    }
}

/// Registers that an instruction reads and writes; those marked [`PRED`] are predicates.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// Read.
    pub reads: Box<[u16]>,
    /// Written.
    pub writes: Box<[u16]>,
}

struct Decoder<'a> {
    entry: &'a Entry,
    /// The slot or predicate of each register.
    registers: Vec<u16>,
    fills: HashMap<Fill, u16>,
    order: Vec<(u16, Fill)>,
    slots: usize,
}

/// Decodes entry `entry` of `module`.
///
/// # Errors
/// It has more registers and constants than a slot's number can tell apart.
pub fn decode(module: &Arc<Module>, entry: usize) -> Result<Program> {
    let kernel = &module.entries[entry];
    let mut decoder = Decoder { entry: kernel, registers: vec![], fills: HashMap::new(), order: vec![], slots: 2 };
    let mut preds = 2usize;
    let mut names = HashMap::new();
    for register in &kernel.registers {
        let place = if register.ty == Type::Pred {
            preds += 1;
            (preds - 1) as u16 | PRED
        } else {
            decoder.slots(register.ty.bits() == 64)
        };
        names.insert(place, register.name.clone());
        decoder.registers.push(place);
    }
    let (mut code, mut pool, mut uses) = (Vec::new(), Vec::new(), Vec::new());
    let mut grain = [16usize; 2];
    for inst in &kernel.code {
        if let Some((shared, bytes)) = grain_of(inst.code) {
            let grain = &mut grain[usize::from(!shared)];
            *grain = bytes.min(*grain);
        }
        let (ins, touch) = decoder.instruction(inst, &mut pool);
        code.push(ins);
        uses.push(touch);
    }
    if decoder.slots > usize::from(PRED) || preds > usize::from(PRED) {
        let name = format!("{}: kernel {}", module.source.name, kernel.name);
        let problem = format!("{name}: {} registers and constants", decoder.slots.max(preds));
        return Err(Error::device(problem, "declare fewer registers, or make the kernel smaller"));
    }
    Ok(Program {
        module: Arc::clone(module),
        entry,
        code,
        pool,
        uses,
        slots: decoder.slots,
        preds,
        fills: decoder.order,
        names,
        grain,
    })
}

/// Whether an instruction uses shared memory, and its smallest piece.
fn grain_of(code: Code) -> Option<(bool, usize)> {
    let small = |bytes: usize| bytes.min(4);
    match code {
        Code::Ld(Access { space, ty, .. }) | Code::St(Access { space, ty, .. }) => match space {
            Space::Param => None,
            Space::Shared => Some((true, small(ty.bytes()))),
            _ => Some((false, small(ty.bytes()))),
        },
        Code::Atom(_, ty, space) | Code::Red(_, ty, space) => Some((space == Space::Shared, small(ty.bytes()))),
        Code::CpAsync | Code::LdMatrix { .. } | Code::StMatrix { .. } => Some((true, 4)),
        _ => None,
    }
}

impl Decoder<'_> {
    fn slots(&mut self, wide: bool) -> u16 {
        let first = self.slots;
        self.slots = first + 1 + usize::from(wide);
        // One that does not fit is found at the end.
        first as u16
    }

    fn fill(&mut self, fill: Fill) -> u16 {
        if let Some(slot) = self.fills.get(&fill) {
            return *slot;
        }
        let slot = self.slots(matches!(fill, Fill::Wide(_) | Fill::Param(_, _, true)));
        self.fills.insert(fill, slot);
        self.order.push((slot, fill));
        slot
    }

    fn number(&mut self, bits: u64, wide: bool) -> (u16, bool) {
        (self.fill(if wide { Fill::Wide(bits) } else { Fill::Word(bits as u32) }), wide)
    }

    /// The slot of an operand, and whether it has 64 bits.
    fn operand(&mut self, operand: Operand) -> (u16, bool) {
        let dynamic = self.entry.shared.next_multiple_of(16) as u64;
        match operand {
            Operand::Reg(r) | Operand::Not(r) => (self.registers[r], self.entry.registers[r].ty.bits() == 64),
            Operand::Imm(bits, ty) => self.number(bits, ty.bits() == 64),
            Operand::Dynamic(ty) => self.number(dynamic, ty.bits() == 64),
            Operand::Special(special) => (self.fill(Fill::Special(special)), false),
            Operand::Address(Base::Reg(r), _) => (self.registers[r], self.entry.registers[r].ty.bits() == 64),
            Operand::Address(Base::Zero, _) => self.number(0, true),
            Operand::Address(Base::Dynamic, _) => self.number(dynamic, true),
            Operand::Address(Base::Param, _) | Operand::Label(_) | Operand::None => (SINK_SLOT, false),
        }
    }

    fn instruction(&mut self, inst: &Inst, pool: &mut Vec<u16>) -> (Ins, Uses) {
        let mut ins = Ins {
            code: inst.code,
            guard: ALWAYS,
            wide: 0,
            not: false,
            short: false,
            flip: 0,
            o: [SINK_SLOT; 6],
            imm: 0,
            imm2: 0,
        };
        let mut touch = (Vec::new(), Vec::new());
        if let Some(guard) = inst.guard {
            let place = self.registers[guard.register];
            (ins.guard, ins.flip) = (place & !PRED, if guard.negated { !0 } else { 0 });
            touch.0.push(place);
        }
        if let (Code::Ld(Access { space: Space::Param, ty, .. }), Operand::Address(_, offset)) =
            (inst.code, inst.operands.get(1).copied().unwrap_or(Operand::None))
        {
            // A parameter is a constant of the launch.
            let (to, wide) = self.operand(inst.operands[0]);
            let from = self.fill(Fill::Param(offset as usize, ty, wide));
            ins.code = Code::Mov(if wide { Type::B64 } else { Type::B32 });
            (ins.o[0], ins.o[1], ins.wide) = (to, from, if wide { 0b11 } else { 0 });
            touch.1.push(to);
            return (ins, done(touch));
        }
        let mut offsets = Vec::new();
        let mut places = Vec::new();
        for (i, operand) in inst.operands.iter().enumerate() {
            match operand {
                Operand::Address(_, offset) => offsets.push(*offset as i32),
                Operand::Label(target) => offsets.push(*target as i32),
                _ => {}
            }
            ins.not |= matches!(operand, Operand::Not(_));
            let (place, wide) = self.operand(*operand);
            let sink = matches!(operand, Operand::None) && i < inst.outputs;
            places.push(if sink { SINK_SLOT } else { place & !PRED });
            if wide && i < 8 {
                ins.wide |= 1 << i;
            }
            let register = matches!(operand, Operand::Reg(_) | Operand::Not(_) | Operand::Address(Base::Reg(_), _));
            if register {
                if i < inst.outputs { &mut touch.1 } else { &mut touch.0 }.push(place);
            }
        }
        // Constants that are part of the instruction.
        let constant = |i: usize| match inst.operands.get(i) {
            Some(Operand::Imm(bits, _)) => Some(*bits as i32),
            _ => None,
        };
        (ins.imm, ins.imm2) = match inst.code {
            Code::Lop3 => (constant(4).unwrap_or(0), 0),
            Code::CpWait => (constant(0).unwrap_or(0), 0),
            _ => (offsets.first().copied().unwrap_or(0), offsets.get(1).copied().unwrap_or(0)),
        };
        match inst.code {
            // A second result that is not wanted goes where nobody looks.
            Code::Setp { .. } if matches!(inst.operands[1], Operand::None) => places[1] = SINK,
            Code::Shfl(_) | Code::Match { all: true, .. } if matches!(inst.operands[1], Operand::None) => {
                places[1] = SINK
            }
            Code::CpAsync => places[2] = constant(2).unwrap_or(0) as u16,
            _ => {}
        }
        ins.short = matches!(inst.operands.last(), Some(Operand::None));
        if places.len() > ins.o.len() {
            ins.imm = pool.len() as i32;
            pool.extend(&places);
        } else {
            ins.o[..places.len()].copy_from_slice(&places);
        }
        (ins, done(touch))
    }
}

fn done((reads, writes): (Vec<u16>, Vec<u16>)) -> Uses {
    Uses { reads: reads.into(), writes: writes.into() }
}

impl Program {
    /// The kernel.
    pub fn kernel(&self) -> &Entry {
        &self.module.entries[self.entry]
    }

    /// The line of the expanded text of instruction `pc`.
    pub fn line(&self, pc: usize) -> usize {
        self.kernel().code[pc].line
    }

    /// The class of instruction `pc`. Loads of parameters count as integer moves.
    pub fn class(&self, pc: usize) -> Class {
        Class::of(self.code[pc].code)
    }
}
