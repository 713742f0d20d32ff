//! Tokens to a [`Module`]: declarations and entries here, instructions in [`inst`](super::inst).

use super::code::Code;
use super::lex::{Kind, Token, lex};
use super::table::Row;
use super::types::{RegType, Type, Word};
use super::{Problem, Source};
use std::collections::HashMap;

/// A parsed kernel file.
#[derive(Debug)]
pub struct Module {
    /// Where it came from.
    pub source: Source,
    /// The PTX version that it asks for, as (7, 8).
    pub version: (u32, u32),
    /// The target that it asks for: 80 for `sm_80`.
    pub target: u32,
    /// Its kernels.
    pub entries: Vec<Entry>,
}

/// A kernel.
#[derive(Debug, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The line of the expanded text on which it begins.
    pub line: usize,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// The most threads of a block (`.maxntid`).
    pub max_threads: Option<[u32; 3]>,
    /// The block that it must be launched with (`.reqntid`).
    pub block: Option<[u32; 3]>,
    /// Bytes of shared memory that it declares; what a launch adds begins there, at a multiple of 16.
    pub shared: usize,
    /// Whether it declares shared memory of a size that the launch gives.
    pub dynamic_shared: bool,
    /// Its registers.
    pub registers: Vec<Register>,
    /// Its instructions; labels are indices into them.
    pub code: Vec<Inst>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Its offset in the parameter space.
    pub offset: usize,
}

/// A register.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its name, as `%r1`.
    pub name: String,
    /// What it was declared as.
    pub ty: RegType,
}

/// `@%p` or `@!%p`.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// The predicate, an index into [`Entry::registers`].
    pub register: usize,
    /// Whether lanes run where it is false.
    pub negated: bool,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What it does.
    pub code: Code,
    /// Which lanes do it.
    pub guard: Option<Guard>,
    /// Its operands as written, vectors element by element: first those that are written.
    pub operands: Vec<Operand>,
    /// How many of them are written.
    pub outputs: usize,
    /// The line of the expanded text.
    pub line: usize,
}

/// An operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    /// A register, an index into [`Entry::registers`].
    Reg(usize),
    /// The negation of a predicate.
    Not(usize),
    /// A constant's bits, and the type that the instruction takes it for.
    Imm(u64, Type),
    /// A special register.
    Special(Special),
    /// `[base + offset]`.
    Address(Base, i64),
    /// An instruction, an index into [`Entry::code`].
    Label(usize),
    /// Where the shared memory begins whose size the launch gives, as a number of this type.
    Dynamic(Type),
    /// `_`, or nothing.
    None,
}

/// What an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Base {
    /// A register.
    Reg(usize),
    /// The parameter space.
    Param,
    /// The shared memory whose size the launch gives.
    Dynamic,
    /// The space's beginning.
    Zero,
}

super::types::words! {
    /// Special registers.
    #[allow(missing_docs)]
    pub enum Special {
        TidX = "%tid.x", TidY = "%tid.y", TidZ = "%tid.z",
        NtidX = "%ntid.x", NtidY = "%ntid.y", NtidZ = "%ntid.z",
        CtaidX = "%ctaid.x", CtaidY = "%ctaid.y", CtaidZ = "%ctaid.z",
        NctaidX = "%nctaid.x", NctaidY = "%nctaid.y", NctaidZ = "%nctaid.z",
        LaneId = "%laneid", WarpId = "%warpid", NwarpId = "%nwarpid",
        MaskEq = "%lanemask_eq", MaskLt = "%lanemask_lt", MaskLe = "%lanemask_le",
        MaskGt = "%lanemask_gt", MaskGe = "%lanemask_ge",
        DynamicShared = "%dynamic_smem_size", TotalShared = "%total_smem_size",
    }
}

/// More elements than any shared memory has.
const MAX_SHARED: usize = 1 << 20;
/// More registers than any kernel needs.
const MAX_REGISTERS: usize = 8192;

/// Parses expanded PTX. Problems bear lines and columns of that text.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str) -> Result<Module, Problem> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        version: 0,
        target: 0,
        shared: Shared::default(),
        scopes: Vec::new(),
        rows: HashMap::new(),
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut version = (0, 0);
    loop {
        let token = parser.next();
        match token.text {
            _ if token.kind == Kind::End => break,
            ".version" => {
                // `7.8` is a number and a word that begins with a dot.
                let (major, minor) = (parser.next(), parser.next());
                let number = |t: Token<'_>| t.text.trim_start_matches('.').parse::<u32>().ok();
                let (Some(major), Some(minor)) = (number(major), number(minor)) else {
                    return Err(at(major, "expected a version, as `7.8`"));
                };
                version = (major, minor);
                parser.version = major * 10 + minor;
            }
            ".target" => {
                let target = parser.next();
                let digits = target.text.strip_prefix("sm_").unwrap_or("").trim_end_matches(['a', 'f']);
                parser.target = digits.parse().map_err(|_| at(target, "expected a target, as `sm_80`"))?;
                while parser.take(",") {
                    parser.next();
                }
            }
            ".address_size" => {
                let size = parser.next();
                if size.kind != Kind::Int(64) {
                    return Err(at(size, format!("addresses have 64 bits here, not {}", size.text)));
                }
            }
            ".file" | ".loc" => parser.skip_line(token.line),
            ".visible" | ".weak" => {}
            ".extern" | ".shared" => parser.shared_declaration(token)?,
            ".entry" => {
                if version == (0, 0) || parser.target == 0 {
                    return Err(at(token, "`.version` and `.target` must stand before the first kernel"));
                }
                let entry = parser.entry(token.line)?;
                if entries.iter().any(|other| other.name == entry.name) {
                    return Err(at(token, format!("there are two kernels called `{}`", entry.name)));
                }
                entries.push(entry);
            }
            other => {
                let hint = "supported: .version, .target, .address_size, .extern .shared, .shared, .visible .entry";
                return Err(at(token, format!("`{other}` is not supported here")).hint(hint));
            }
        }
    }
    Ok(Module { source: Source::default(), version, target: parser.target, entries })
}

pub(super) fn at(token: Token<'_>, message: impl Into<String>) -> Problem {
    Problem::at(token.line, token.column, message)
}

/// Shared memory that is declared.
#[derive(Clone, Default)]
pub(super) struct Shared {
    /// Names and addresses.
    pub names: HashMap<String, u64>,
    /// Names whose address is where the declared memory ends.
    pub dynamic: Vec<String>,
    bytes: usize,
}

pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// The version times ten.
    pub version: u32,
    pub target: u32,
    pub shared: Shared,
    /// Registers by name, innermost braces last.
    pub scopes: Vec<HashMap<String, usize>>,
    /// The row of each instruction seen so far.
    pub rows: HashMap<&'a str, &'static Row>,
}

/// An instruction whose labels are not resolved yet.
pub(super) struct Jump<'a> {
    pub inst: usize,
    pub label: Token<'a>,
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    /// The tokens to come.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &Token<'a>> {
        self.tokens[self.at..].iter()
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = self.peek().text == text;
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expect(&mut self, text: &str) -> Result<Token<'a>, Problem> {
        let token = self.next();
        if token.text == text {
            Ok(token)
        } else {
            Err(at(token, format!("expected `{text}`, found `{}`", token.text)))
        }
    }

    pub(super) fn name(&mut self) -> Result<Token<'a>, Problem> {
        let token = self.next();
        let named = token.kind == Kind::Word && !token.text.contains('.');
        if named { Ok(token) } else { Err(at(token, format!("expected a name, found `{}`", token.text))) }
    }

    fn int(&mut self) -> Result<u64, Problem> {
        let token = self.next();
        match token.kind {
            Kind::Int(i) => Ok(i),
            _ => Err(at(token, format!("expected a number, found `{}`", token.text))),
        }
    }

    fn skip_line(&mut self, line: usize) {
        while self.peek().line == line && self.peek().kind != Kind::End {
            self.next();
        }
    }

    /// The type that a word like `.u32` names.
    fn type_of(&mut self) -> Result<Type, Problem> {
        let token = self.next();
        token.text.strip_prefix('.').and_then(Type::named).ok_or_else(|| {
            let types: Vec<String> = Type::ALL.iter().map(|(_, word)| format!(".{word}")).collect();
            at(token, format!("`{}` is not a type", token.text)).hint(format!("types are {}", types.join(", ")))
        })
    }

    /// `.shared .align 16 .b8 name[bytes];`, the first word taken.
    fn shared_declaration(&mut self, first: Token<'a>) -> Result<(), Problem> {
        let dynamic = first.text == ".extern";
        if dynamic {
            self.expect(".shared")?;
        }
        let mut align = 1;
        if self.take(".align") {
            let token = self.peek();
            align = self.int()? as usize;
            if !align.is_power_of_two() || align > 1024 {
                return Err(at(token, format!("an alignment of {align}; it is a power of 2, at most 1024")));
            }
        }
        let ty = self.type_of()?;
        let align = align.max(ty.bytes());
        loop {
            let name = self.name()?;
            let mut count = 1;
            while self.take("[") {
                let more = if self.peek().text == "]" && dynamic { 0 } else { self.int()? as usize };
                count = more.saturating_mul(count);
                self.expect("]")?;
            }
            if count > MAX_SHARED {
                return Err(at(name, format!("`{}` is larger than the shared memory of any GPU", name.text)));
            }
            let text = name.text.to_owned();
            if self.shared.names.contains_key(&text) || self.shared.dynamic.contains(&text) {
                return Err(at(name, format!("`{text}` is declared twice")));
            }
            if dynamic {
                self.shared.dynamic.push(text);
            } else {
                let start = self.shared.bytes.next_multiple_of(align);
                self.shared.bytes = start + count * ty.bytes();
                self.shared.names.insert(text, start as u64);
            }
            if !self.take(",") {
                break;
            }
        }
        self.expect(";").map(|_| ())
    }

    /// A kernel, from behind `.entry` on.
    fn entry(&mut self, line: usize) -> Result<Entry, Problem> {
        let mut entry = Entry { name: self.name()?.text.to_owned(), line, ..Entry::default() };
        let mut offset: usize = 0;
        if self.take("(") && !self.take(")") {
            loop {
                self.expect(".param")?;
                let ty = self.type_of()?;
                if self.take(".ptr") {
                    for space in [".global", ".shared", ".const", ".local"] {
                        self.take(space);
                    }
                    if self.take(".align") {
                        self.int()?;
                    }
                }
                let name = self.name()?;
                if entry.params.iter().any(|param| param.name == name.text) {
                    return Err(at(name, format!("there are two parameters called `{}`", name.text)));
                }
                offset = offset.next_multiple_of(ty.bytes());
                entry.params.push(Param { name: name.text.to_owned(), ty, offset });
                offset += ty.bytes();
                if self.take(")") {
                    break;
                }
                self.expect(",")?;
            }
        }
        loop {
            let token = self.next();
            match token.text {
                "{" => break,
                ".maxntid" => entry.max_threads = Some(self.dims()?),
                ".reqntid" => entry.block = Some(self.dims()?),
                ".minnctapersm" | ".maxnreg" => _ = self.int()?,
                other => {
                    let hint = "supported: .maxntid, .reqntid, .minnctapersm, .maxnreg";
                    return Err(at(token, format!("expected `{{` or a directive, found `{other}`")).hint(hint));
                }
            }
            if entry.max_threads.is_some() && entry.block.is_some() {
                return Err(at(token, "`.maxntid` and `.reqntid` exclude each other"));
            }
        }
        // Memory declared inside belongs to this kernel alone.
        let outside = self.shared.clone();
        self.body(&mut entry)?;
        entry.shared = self.shared.bytes;
        entry.dynamic_shared = !self.shared.dynamic.is_empty();
        self.shared = outside;
        Ok(entry)
    }

    fn dims(&mut self) -> Result<[u32; 3], Problem> {
        let mut dims = [1; 3];
        for (i, dim) in dims.iter_mut().enumerate() {
            if i == 0 || self.take(",") {
                *dim = self.int()? as u32;
            }
        }
        Ok(dims)
    }

    /// What stands between the braces of a kernel.
    fn body(&mut self, entry: &mut Entry) -> Result<(), Problem> {
        let mut labels: HashMap<&str, usize> = HashMap::new();
        let mut jumps: Vec<Jump<'a>> = Vec::new();
        self.scopes = vec![HashMap::new()];
        while !self.scopes.is_empty() {
            let token = self.peek();
            match token.text {
                "{" => {
                    self.next();
                    self.scopes.push(HashMap::new());
                }
                "}" => {
                    self.next();
                    self.scopes.pop();
                }
                ".reg" => self.registers(entry)?,
                ".shared" => {
                    let first = self.next();
                    self.shared_declaration(first)?;
                }
                ".loc" | ".pragma" => self.skip_line(token.line),
                ";" => _ = self.next(),
                _ if token.kind == Kind::End => return Err(at(token, "the kernel has no `}`")),
                _ if self.tokens.get(self.at + 1).is_some_and(|t| t.text == ":") => {
                    let label = self.name()?;
                    self.next();
                    if labels.insert(label.text, entry.code.len()).is_some() {
                        return Err(at(label, format!("the label `{}` is set twice", label.text)));
                    }
                }
                _ => self.instruction(entry, &mut jumps)?,
            }
        }
        let line = self.tokens[self.at - 1].line;
        entry.code.push(Inst { code: Code::Exit, guard: None, operands: vec![], outputs: 0, line });
        for Jump { inst, label } in jumps {
            let Some(target) = labels.get(label.text) else {
                let mut known: Vec<&str> = labels.keys().copied().collect();
                known.sort_unstable();
                let hint = format!("labels here: {}", known.join(", "));
                return Err(at(label, format!("there is no label `{}`", label.text)).hint(hint));
            };
            entry.code[inst].operands[0] = Operand::Label(*target);
        }
        Ok(())
    }

    /// `.reg .b32 %a, %r<5>;`
    fn registers(&mut self, entry: &mut Entry) -> Result<(), Problem> {
        self.next();
        let ty = self.type_of()?;
        loop {
            let token = self.name()?;
            let first = token.text;
            if entry.registers.len() > MAX_REGISTERS {
                return Err(at(token, format!("more than {MAX_REGISTERS} registers")));
            }
            if Special::ALL.iter().any(|(_, word)| word.split('.').next() == Some(first)) {
                let hint = "choose another name";
                return Err(at(token, format!("`{first}` would hide the special register of that name")).hint(hint));
            }
            let mut names = vec![first.to_owned()];
            if self.take("<") {
                let count = self.int()?;
                if count > MAX_REGISTERS as u64 {
                    return Err(at(token, format!("{count} registers are more than any GPU has")));
                }
                names = (0..count).map(|i| format!("{first}{i}")).collect();
                self.expect(">")?;
            }
            for name in names {
                let index = entry.registers.len();
                let scope = self.scopes.last_mut().expect("inside of a kernel");
                if scope.insert(name.clone(), index).is_some() {
                    return Err(at(token, format!("the register `{name}` is declared twice")));
                }
                entry.registers.push(Register { name, ty });
            }
            if !self.take(",") {
                break;
            }
        }
        self.expect(";").map(|_| ())
    }
}
