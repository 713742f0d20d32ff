//! One instruction: its row of the [`TABLE`], and its operands against the types that the row says.

use super::Problem;
use super::code::{Code, Space};
use super::lex::{Kind, Token};
use super::parse::{Base, Entry, Guard, Inst, Jump, Operand, Parser, Special, at};
use super::syntax::{Mods, accepts, spelled};
use super::table::{Row, TABLE};
use super::types::{Type, Word};

/// What an operand of a row may be, read from its notation.
struct Spec {
    ty: Type,
    output: bool,
    relaxed: bool,
    /// A predicate may follow behind `|`.
    pair: bool,
    count: Option<u8>,
}

impl Spec {
    fn new(text: &str, mods: &Mods<'_>) -> Spec {
        let (output, text) = text.strip_prefix('=').map_or((false, text), |text| (true, text));
        let (pair, text) = text.strip_suffix("|p").map_or((false, text), |text| (true, text));
        let (count, text) = match text.as_bytes()[0] {
            b'N' => (Some(mods.count()), &text[1..]),
            digit @ b'1'..=b'9' => (Some(digit - b'0'), &text[1..]),
            _ => (None, text),
        };
        let (relaxed, text) = text.strip_prefix('~').map_or((false, text), |text| (true, text));
        let ty = match text {
            "t" => mods.ty(0),
            "u" => mods.ty(usize::MAX),
            "w" => mods.ty(0).wider(),
            "p" => Type::Pred,
            name => Type::named(name).expect("the table names types"),
        };
        Spec { ty, output, relaxed, pair, count }
    }
}

impl<'a> Parser<'a> {
    /// An instruction with its guard and its `;`.
    pub(super) fn instruction(&mut self, entry: &mut Entry, jumps: &mut Vec<Jump<'a>>) -> Result<(), Problem> {
        let mut guard = None;
        if self.take("@") {
            let negated = self.take("!");
            let token = self.name()?;
            guard = Some(Guard { register: self.register(entry, token, Type::Pred, false)?, negated });
        }
        let opcode = self.next();
        if opcode.kind != Kind::Word || opcode.text.starts_with(['.', '%']) {
            return Err(at(opcode, format!("expected an instruction, found `{}`", opcode.text)));
        }
        let row = self.row(opcode)?;
        let mods = Mods::new(opcode.text);
        let mut inst = Inst { code: (row.code)(&mods), guard, operands: Vec::new(), outputs: 0, line: opcode.line };
        if let (Code::Mov(ty), true) = (inst.code, self.pack_ahead()) {
            self.pack(entry, &mut inst, ty)?;
        } else {
            for (i, text) in row.operands.split(' ').filter(|text| !text.is_empty()).enumerate() {
                let (optional, text) = text.strip_suffix('?').map_or((false, text), |text| (true, text));
                if optional && self.peek().text == ";" {
                    inst.operands.push(Operand::None);
                    continue;
                }
                if i > 0 {
                    self.expect(",").map_err(|problem| problem.hint(form(opcode, row)))?;
                }
                if text == "L" {
                    jumps.push(Jump { inst: entry.code.len(), label: self.name()? });
                    inst.operands.push(Operand::None);
                } else {
                    self.operand(entry, &mut inst, text, &mods)?;
                }
            }
        }
        if inst.code == Code::CpAsync && !matches!(inst.operands[2], Operand::Imm(4 | 8 | 16, _)) {
            return Err(at(opcode, "cp.async copies 4, 8 or 16 bytes").hint(form(opcode, row)));
        }
        self.expect(";").map_err(|problem| problem.hint(form(opcode, row)))?;
        entry.code.push(inst);
        Ok(())
    }

    /// The row of an instruction, if this module's version and target have it.
    fn row(&mut self, opcode: Token<'a>) -> Result<&'static Row, Problem> {
        if let Some(row) = self.rows.get(opcode.text) {
            return Ok(row);
        }
        let words = Mods::new(opcode.text).0;
        let row =
            TABLE.iter().find(|row| accepts(row.syntax, &words).is_ok()).ok_or_else(|| unknown(opcode, &words))?;
        let needs = |what: &str, has: String| {
            at(opcode, format!("`{}` needs {what}, the file says {has}", opcode.text))
                .hint("raise `.version` or `.target` at the top of the file, or use an older instruction")
        };
        if self.version < row.version {
            let (v, has) = (row.version, self.version);
            return Err(needs(&format!("PTX {}.{}", v / 10, v % 10), format!(".version {}.{}", has / 10, has % 10)));
        }
        if self.target < row.target {
            return Err(needs(&format!("sm_{}", row.target), format!(".target sm_{}", self.target)));
        }
        self.rows.insert(opcode.text, row);
        Ok(row)
    }

    fn operand(&mut self, entry: &Entry, inst: &mut Inst, text: &str, mods: &Mods<'_>) -> Result<(), Problem> {
        if let Some(space) = text.strip_prefix('[') {
            let space = match (space, inst.code) {
                ("g]", _) => Space::Global,
                ("s]", _) => Space::Shared,
                ("p]", _) => Space::Param,
                (_, Code::Ld(access) | Code::St(access)) => access.space,
                (_, Code::Atom(.., space) | Code::Red(.., space)) => space,
                _ => Space::Generic,
            };
            let operand = self.address(entry, space, inst.code)?;
            inst.operands.push(operand);
            return Ok(());
        }
        if text == "#" {
            let token = self.peek();
            let operand = self.constant(Type::B32)?;
            let message = "expected a constant: the assembler must know it";
            inst.operands.push(operand.ok_or_else(|| at(token, message))?);
            return Ok(());
        }
        let spec = Spec::new(text, mods);
        match spec.count {
            Some(count) => self.vector(entry, inst, &spec, count)?,
            None => {
                let operand = self.value(entry, &spec)?;
                inst.operands.push(operand);
            }
        }
        if spec.pair {
            let second = if self.take("|") {
                let ty = Spec { ty: Type::Pred, pair: false, count: None, ..spec };
                self.value(entry, &ty)?
            } else {
                Operand::None
            };
            inst.operands.push(second);
        }
        if spec.output {
            inst.outputs = inst.operands.len();
        }
        Ok(())
    }

    /// `{a, b}`; a vector of one may do without braces.
    fn vector(&mut self, entry: &Entry, inst: &mut Inst, spec: &Spec, count: u8) -> Result<(), Problem> {
        let open = self.peek();
        if count == 1 && open.text != "{" {
            let operand = self.value(entry, spec)?;
            inst.operands.push(operand);
            return Ok(());
        }
        let elements = self.braced(entry, spec)?;
        if elements.len() != usize::from(count) {
            let message = format!("expected {count} registers in braces, found {}", elements.len());
            return Err(at(open, message));
        }
        inst.operands.extend(elements);
        Ok(())
    }

    fn braced(&mut self, entry: &Entry, spec: &Spec) -> Result<Vec<Operand>, Problem> {
        self.expect("{")?;
        let mut elements = vec![self.value(entry, spec)?];
        while self.take(",") {
            elements.push(self.value(entry, spec)?);
        }
        self.expect("}")?;
        Ok(elements)
    }

    /// Whether an operand of the `mov` at hand is in braces.
    fn pack_ahead(&self) -> bool {
        self.ahead().take_while(|token| token.text != ";").any(|token| token.text == "{")
    }

    /// `mov` with braces on one side.
    fn pack(&mut self, entry: &Entry, inst: &mut Inst, ty: Type) -> Result<(), Problem> {
        let open = self.peek();
        let unpack = open.text == "{";
        let whole = |output| Spec { ty, output, relaxed: false, pair: false, count: None };
        // Before the parts are seen their width is not known: they are checked when they are there.
        let parts = |parser: &mut Self, output| -> Result<Vec<Operand>, Problem> {
            let open = parser.peek();
            let n = parser.ahead().take_while(|token| token.text != "}").filter(|token| token.text == ",").count() + 1;
            let part = match (ty, n) {
                (Type::B32, 2) => Type::B16,
                (Type::B64, 2) => Type::B32,
                (Type::B64, 4) => Type::B16,
                _ => return Err(at(open, format!("`mov.{}` cannot be of {n} parts", ty.word()))),
            };
            parser.braced(entry, &Spec { ty: part, output, relaxed: false, pair: false, count: None })
        };
        let bits = ty.bits() as u8;
        if unpack {
            inst.operands = parts(self, true)?;
            inst.outputs = inst.operands.len();
            self.expect(",")?;
            inst.code = Code::Unpack { n: inst.outputs as u8, bits };
            let operand = self.value(entry, &whole(false))?;
            inst.operands.push(operand);
        } else {
            inst.operands = vec![self.value(entry, &whole(true))?];
            inst.outputs = 1;
            self.expect(",")?;
            let parts = parts(self, false)?;
            inst.code = Code::Pack { n: parts.len() as u8, bits };
            inst.operands.extend(parts);
        }
        Ok(())
    }

    /// The register that `token` names, if an operand of type `ty` may be it.
    fn register(&self, entry: &Entry, token: Token<'a>, ty: Type, relaxed: bool) -> Result<usize, Problem> {
        let Some(index) = self.scopes.iter().rev().find_map(|scope| scope.get(token.text)) else {
            return Err(at(token, format!("`{}` is not declared", token.text)).hint("declare it with .reg"));
        };
        let register = &entry.registers[*index];
        if ty.takes(register.ty, relaxed) {
            return Ok(*index);
        }
        let message = format!("`{}` is a .{}, this operand is a .{}", token.text, register.ty.word(), ty.word());
        Err(at(token, message))
    }

    /// A number of type `ty`, if one comes.
    fn constant(&mut self, ty: Type) -> Result<Option<Operand>, Problem> {
        let first = self.peek();
        let negative = self.take("-");
        let token = self.peek();
        let number = matches!(token.kind, Kind::Int(_) | Kind::F32(_) | Kind::F64(_));
        if !number {
            return if negative { Err(at(token, "expected a number behind `-`")) } else { Ok(None) };
        }
        self.next();
        let mask = u64::MAX >> (64 - ty.bits().max(1));
        let bits = match (token.kind, ty) {
            (Kind::Int(i), _) if !ty.float() && ty != Type::Pred => {
                let fits = if negative { i <= mask / 2 + 1 } else { i <= mask };
                let value = if negative { i.wrapping_neg() } else { i };
                fits.then_some(value & mask)
            }
            (Kind::F32(bits), Type::F32 | Type::B32) if !negative => Some(u64::from(bits)),
            (Kind::F64(bits), Type::F64 | Type::B64) if !negative => Some(bits),
            _ => None,
        };
        let Some(bits) = bits else {
            let sign = if negative { "-" } else { "" };
            let problem = at(first, format!("`{sign}{}` is no constant of type .{}", token.text, ty.word()));
            let hint = if ty == Type::F32 { "an f32 is written by its bits: 1 is 0f3f800000" } else { "" };
            return Err(problem.hint(hint));
        };
        Ok(Some(Operand::Imm(bits, ty)))
    }

    /// A register, a constant, a special register, the address of shared memory, or `_`.
    fn value(&mut self, entry: &Entry, spec: &Spec) -> Result<Operand, Problem> {
        let Spec { ty, output, relaxed, .. } = *spec;
        if !output {
            if let Some(constant) = self.constant(ty)? {
                return Ok(constant);
            }
            if ty == Type::Pred && self.take("!") {
                let token = self.name()?;
                return Ok(Operand::Not(self.register(entry, token, ty, false)?));
            }
        }
        let token = self.next();
        if token.kind != Kind::Word {
            return Err(at(token, format!("expected an operand, found `{}`", token.text)));
        }
        if token.text == "_" && output {
            return Ok(Operand::None);
        }
        let declared = self.scopes.iter().any(|scope| scope.contains_key(token.text));
        if !output && !declared {
            if let Some(special) = Special::named(token.text) {
                if ty.takes(Type::U32, false) {
                    return Ok(Operand::Special(special));
                }
                return Err(at(token, format!("`{}` is a .u32, this operand is a .{}", token.text, ty.word())));
            }
            let (known, dynamic) =
                (self.shared.names.get(token.text), self.shared.dynamic.iter().any(|n| n == token.text));
            if known.is_some() || dynamic {
                if ty.float() || ty.bits() < 32 {
                    return Err(at(token, format!("`{}` is an address, this operand is a .{}", token.text, ty.word())));
                }
                return Ok(known.map_or(Operand::Dynamic(ty), |address| Operand::Imm(*address, ty)));
            }
            if token.text.starts_with('%') && token.text.contains('.') {
                let known: Vec<&str> = Special::ALL.iter().map(|(_, word)| *word).collect();
                let hint = format!("special registers here: {}", known.join(", "));
                return Err(at(token, format!("unknown special register `{}`", token.text)).hint(hint));
            }
        }
        self.register(entry, token, ty, relaxed).map(Operand::Reg)
    }

    /// `[base]`, `[base+4]`, `[base-4]`.
    fn address(&mut self, entry: &Entry, space: Space, code: Code) -> Result<Operand, Problem> {
        self.expect("[")?;
        let token = self.next();
        let mut offset = 0i64;
        let base = if let Kind::Int(_) = token.kind {
            return Err(at(token, "an address is a register or a name, and perhaps an offset"));
        } else if space == Space::Param {
            let Some(param) = entry.params.iter().find(|param| param.name == token.text) else {
                let known: Vec<&str> = entry.params.iter().map(|param| param.name.as_str()).collect();
                let problem = at(token, format!("the kernel has no parameter `{}`", token.text));
                return Err(problem.hint(format!("it has: {}", known.join(", "))));
            };
            if let Code::Ld(access) = code
                && access.ty.bytes() != param.ty.bytes()
            {
                let message = format!("`{}` is a .{}, not a .{}", param.name, param.ty.word(), access.ty.word());
                return Err(at(token, message));
            }
            offset = param.offset as i64;
            Base::Param
        } else if self.scopes.iter().any(|scope| scope.contains_key(token.text)) {
            let wide = self.register(entry, token, Type::B64, false);
            // Shared memory has 32-bit addresses too.
            match (wide, space) {
                (Ok(index), _) => Base::Reg(index),
                (Err(_), Space::Shared) => Base::Reg(self.register(entry, token, Type::B32, false)?),
                (Err(problem), _) => {
                    return Err(problem.hint(format!("an address in {} memory has 64 bits", space.word())));
                }
            }
        } else if let Some(address) = self.shared.names.get(token.text).filter(|_| space == Space::Shared) {
            offset = *address as i64;
            Base::Zero
        } else if space == Space::Shared && self.shared.dynamic.iter().any(|name| name == token.text) {
            Base::Dynamic
        } else {
            self.register(entry, token, Type::B64, false).map(Base::Reg)?
        };
        let plus = self.take("+");
        if plus || self.peek().text == "-" {
            let negative = self.take("-");
            let number = self.next();
            let Kind::Int(i) = number.kind else {
                return Err(at(number, format!("expected a number, found `{}`", number.text)));
            };
            let i = i as i64;
            offset = offset.wrapping_add(if negative { i.wrapping_neg() } else { i });
        }
        self.expect("]")?;
        if i32::try_from(offset).is_err() {
            return Err(at(token, format!("the offset {offset} does not fit 32 bits")));
        }
        Ok(Operand::Address(base, offset))
    }
}

/// How an instruction is written, for a hint.
fn form(opcode: Token<'_>, row: &Row) -> String {
    format!("the operands of `{}` are: {}", opcode.text, row.operands.replace(' ', ", "))
}

/// Why no row takes these words.
fn unknown(opcode: Token<'_>, words: &[&str]) -> Problem {
    let matched = |row: &&Row| accepts(row.syntax, words).err().unwrap_or(0);
    let best = TABLE.iter().map(|row| matched(&row)).max().unwrap_or(0);
    if best == 0 {
        let mut known: Vec<String> = TABLE
            .iter()
            .flat_map(|row| {
                let first = row.syntax.strip_prefix('{').and_then(|s| s.split_once('}')).map(|(first, _)| first);
                let first = first.filter(|first| !first.starts_with('.'));
                first.unwrap_or_else(|| row.syntax.split(['.', '{']).next().unwrap_or("")).split('|').map(str::to_owned)
            })
            .collect();
        known.sort();
        known.dedup();
        let hint = format!("instructions are: {}", known.join(", "));
        return at(opcode, format!("unknown instruction `{}`", words[0])).hint(hint);
    }
    let rows: Vec<String> = TABLE.iter().filter(|row| matched(row) == best).map(|row| spelled(row.syntax)).collect();
    let hint = format!("supported: {}", rows.join("; "));
    match words.get(best) {
        Some(word) => {
            let column = opcode.column + words[..best].iter().map(|word| word.len() + 1).sum::<usize>();
            Problem::at(opcode.line, column, format!("`.{word}` is not supported here in `{}`", opcode.text)).hint(hint)
        }
        None => at(opcode, format!("`{}` lacks a modifier or a type", opcode.text)).hint(hint),
    }
}
