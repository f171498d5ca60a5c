//! TSDL's grammar, as far as needed: words in, types and blocks out. Names of types are resolved
//! while parsing. Depth is bounded, so that neither parsing nor dropping can exhaust the stack.

use super::lexer::{Lexer, Token};
use crate::{Error, Result};
use std::collections::HashMap;
use std::rc::Rc;

/// Deepest nesting of types.
const MAX_DEPTH: u32 = 24;

/// A type as it lies in a record.
#[derive(Debug)]
pub(super) enum Ty {
    Int { bits: u64, align: u64, signed: bool },
    Float { exp: u64, mant: u64, align: u64 },
    Text,
    Enum { of: Rc<Ty>, names: Vec<(String, u64, u64)> },
    Struct { fields: Vec<Named> },
    Variant { tag: String, fields: Vec<Named> },
    Array { of: Rc<Ty>, len: Len },
}

/// A field of a structure or variant.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) ty: Rc<Ty>,
}

/// Length of an array, or the name of the field that holds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Len {
    Fixed(u64),
    Field(String),
}

/// What follows `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Int(u64),
    Text(String),
}

/// `trace { … }`, `event { … }` and the like.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) line: u32,
    pub(super) values: Vec<(String, Scalar)>,
    pub(super) types: Vec<(String, Rc<Ty>)>,
}

impl Block {
    pub(super) fn value(&self, key: &str) -> Option<&Scalar> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(super) fn int(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Scalar::Int(n) => Some(*n),
            Scalar::Text(_) => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Scalar::Text(text) => Some(text),
            Scalar::Int(_) => None,
        }
    }

    pub(super) fn ty(&self, key: &str) -> Option<&Ty> {
        self.types.iter().find(|(k, _)| k == key).map(|(_, t)| &**t)
    }
}

/// All blocks of a file, by keyword, in order.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<(String, Block)>> {
    let mut parser = Parser {
        lexer: Lexer::new(text),
        next: None,
        line: 1,
        names: HashMap::new(),
        depths: HashMap::new(),
    };
    parser.advance()?;
    let mut out = Vec::new();
    while parser.next.is_some() {
        let line = parser.line;
        let keyword = parser.ident("a block")?;
        match keyword.as_str() {
            "typealias" => {
                let ty = parser.ty(0)?;
                parser.expect(":=")?;
                let name = parser.ident("a name for the type")?;
                parser.names.insert(name, ty);
            }
            "struct" | "variant" | "enum" => {
                parser.ty_after(&keyword, 0)?;
            }
            "trace" | "env" | "clock" | "stream" | "event" | "callsite" => {
                let mut block = parser.block()?;
                block.line = line;
                out.push((keyword, block));
            }
            other => return Err(parser.error_at(line, &format!("{other:?} is not known here"))),
        }
        parser.expect(";")?;
    }
    Ok(out)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Option<Token>,
    /// The line that `next` is on.
    line: u32,
    /// Types by name; those of `struct x` under `struct x`.
    names: HashMap<String, Rc<Ty>>,
    /// Nesting of structured types, by address; shared types are not walked again.
    depths: HashMap<*const Ty, u32>,
}

impl Parser<'_> {
    fn error_at(&self, line: u32, what: &str) -> Error {
        let why = match &self.next {
            Some(_) => {
                "the trace may be newer than this tool, or of another tracer (then use babeltrace2)"
            }
            None => "the file is cut short: copy the trace again from where it was recorded",
        };
        Error::new(format!("metadata line {line}: {what}; {why}"))
    }

    fn error(&self, wanted: &str) -> Error {
        let found = match &self.next {
            Some(token) => format!("{token:?}"),
            None => "the end of the file".into(),
        };
        self.error_at(self.line, &format!("wanted {wanted}, found {found}"))
    }

    /// Takes the next word and reads the one after it.
    fn advance(&mut self) -> Result<Option<Token>> {
        let after = self.lexer.next_word()?;
        self.line = self.lexer.word_line();
        Ok(std::mem::replace(&mut self.next, after))
    }

    fn peek(&self, punct: &str) -> bool {
        matches!(self.next, Some(Token::Punct(p)) if p == punct)
    }

    fn accept(&mut self, punct: &str) -> Result<bool> {
        let found = self.peek(punct);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, punct: &str) -> Result<()> {
        if self.accept(punct)? { Ok(()) } else { Err(self.error(punct)) }
    }

    fn ident(&mut self, wanted: &str) -> Result<String> {
        if !matches!(self.next, Some(Token::Ident(_))) {
            return Err(self.error(wanted));
        }
        match self.advance()? {
            Some(Token::Ident(name)) => Ok(name),
            _ => Err(self.error(wanted)),
        }
    }

    fn int(&mut self) -> Result<u64> {
        let Some(Token::Int(n)) = self.next else { return Err(self.error("a number")) };
        self.advance()?;
        Ok(n)
    }

    /// `{ a.b = 1; c := struct { … }; }`
    fn block(&mut self) -> Result<Block> {
        let mut block = Block::default();
        self.expect("{")?;
        while !self.accept("}")? {
            let mut key = self.ident("a key")?;
            while self.accept(".")? {
                key = format!("{key}.{}", self.ident("a key")?);
            }
            if self.accept(":=")? {
                let ty = self.ty(0)?;
                block.types.push((key, ty));
            } else {
                self.expect("=")?;
                let value = self.scalar()?;
                block.values.push((key, value));
            }
            self.expect(";")?;
        }
        Ok(block)
    }

    fn scalar(&mut self) -> Result<Scalar> {
        match self.next {
            Some(Token::Int(n)) => {
                self.advance()?;
                return Ok(Scalar::Int(n));
            }
            Some(Token::Str(_) | Token::Ident(_)) => {}
            _ => return Err(self.error("a value")),
        }
        match self.advance()? {
            Some(Token::Ident(mut text)) => {
                while self.accept(".")? {
                    text = format!("{text}.{}", self.ident("a name")?);
                }
                Ok(Scalar::Text(text))
            }
            Some(Token::Str(text)) => Ok(Scalar::Text(text)),
            _ => Err(self.error("a value")),
        }
    }

    fn make(&mut self, ty: Ty) -> Result<Rc<Ty>> {
        let depth_of = |of: &Rc<Ty>| self.depths.get(&Rc::as_ptr(of)).copied().unwrap_or(0);
        let depth = 1 + match &ty {
            Ty::Struct { fields } | Ty::Variant { fields, .. } => {
                fields.iter().map(|f| depth_of(&f.ty)).max().unwrap_or(0)
            }
            Ty::Array { of, .. } | Ty::Enum { of, .. } => depth_of(of),
            _ => 0,
        };
        if depth > MAX_DEPTH {
            return Err(self.error("types nested less deeply"));
        }
        let ty = Rc::new(ty);
        self.depths.insert(Rc::as_ptr(&ty), depth);
        Ok(ty)
    }

    fn ty(&mut self, depth: u32) -> Result<Rc<Ty>> {
        if depth > MAX_DEPTH {
            return Err(self.error("types nested less deeply"));
        }
        let keyword = self.ident("a type")?;
        self.ty_after(&keyword, depth)
    }

    /// The type that begins with `keyword`, which was read already.
    fn ty_after(&mut self, keyword: &str, depth: u32) -> Result<Rc<Ty>> {
        let ty = match keyword {
            "integer" => self.integer()?,
            "floating_point" => {
                let a = self.block()?;
                Ty::Float {
                    exp: a.int("exp_dig").unwrap_or(0),
                    mant: a.int("mant_dig").unwrap_or(0),
                    align: a.int("align").unwrap_or(1),
                }
            }
            "string" => {
                if self.peek("{") {
                    self.block()?;
                }
                Ty::Text
            }
            "enum" => self.enumeration(depth)?,
            "struct" => return self.structure(depth),
            "variant" => self.variant(depth)?,
            name => {
                let found = self.names.get(name).cloned();
                return found.ok_or_else(|| self.error_at(self.line, &format!("no type {name:?}")));
            }
        };
        self.make(ty)
    }

    fn integer(&mut self) -> Result<Ty> {
        let a = self.block()?;
        let signed = match a.value("signed") {
            Some(Scalar::Text(word)) => word == "true",
            Some(Scalar::Int(n)) => *n != 0,
            None => false,
        };
        if a.text("byte_order").is_some_and(|order| order != "le" && order != "native") {
            return Err(self.error("little-endian integers"));
        }
        let bits = a.int("size").ok_or_else(|| self.error("an integer with a size"))?;
        let align = a.int("align").unwrap_or(if bits % 8 == 0 { 8 } else { 1 });
        Ok(Ty::Int { bits, align, signed })
    }

    /// `enum [name] : integer { a = 0, b = 1 ... 3 }`
    fn enumeration(&mut self, depth: u32) -> Result<Ty> {
        if !self.peek(":") {
            self.ident("':' and the type of the enumeration")?;
        }
        self.expect(":")?;
        let of = self.ty(depth + 1)?;
        self.expect("{")?;
        let mut names = Vec::new();
        let mut next = 0;
        while !self.accept("}")? {
            if !matches!(self.next, Some(Token::Str(_) | Token::Ident(_))) {
                return Err(self.error("a name"));
            }
            let Some(Token::Str(name) | Token::Ident(name)) = self.advance()? else { break };
            let mut range = (next, next);
            if self.accept("=")? {
                let low = self.int()?;
                range = (low, if self.accept("...")? { self.int()? } else { low });
            }
            next = range.1.wrapping_add(1);
            names.push((name, range.0, range.1));
            if !self.peek("}") {
                self.expect(",")?;
            }
        }
        Ok(Ty::Enum { of, names })
    }

    /// `struct [name] { … } [align(8)]`, or `struct name` for one that was named before.
    fn structure(&mut self, depth: u32) -> Result<Rc<Ty>> {
        let mut name = None;
        if !self.peek("{") {
            name = Some(format!("struct {}", self.ident("'{'")?));
        }
        if !self.peek("{") {
            let name = name.unwrap_or_default();
            let found = self.names.get(&name).cloned();
            return found.ok_or_else(|| self.error_at(self.line, &format!("no type {name:?}")));
        }
        let fields = self.fields(depth)?;
        if matches!(&self.next, Some(Token::Ident(word)) if word == "align") {
            self.advance()?;
            self.expect("(")?;
            if self.int()? > 8 {
                return Err(self.error("structures that start on any byte; before this"));
            }
            self.expect(")")?;
        }
        let ty = self.make(Ty::Struct { fields })?;
        if let Some(name) = name {
            self.names.insert(name, Rc::clone(&ty));
        }
        Ok(ty)
    }

    /// `variant <tag> { … }`
    fn variant(&mut self, depth: u32) -> Result<Ty> {
        if !self.peek("<") {
            self.ident("'<' and the tag of the variant")?;
        }
        self.expect("<")?;
        let mut tag = self.ident("the tag of the variant")?;
        while self.accept(".")? {
            tag = format!("{tag}.{}", self.ident("a name")?);
        }
        self.expect(">")?;
        Ok(Ty::Variant { tag, fields: self.fields(depth)? })
    }

    /// `{ type name; type name[3]; type name[field]; }`
    fn fields(&mut self, depth: u32) -> Result<Vec<Named>> {
        let mut fields = Vec::new();
        self.expect("{")?;
        while !self.accept("}")? {
            let mut ty = self.ty(depth + 1)?;
            let name = self.ident("a field's name")?;
            while self.accept("[")? {
                let len = match self.advance()? {
                    Some(Token::Int(n)) => Len::Fixed(n),
                    Some(Token::Ident(field)) => Len::Field(field),
                    _ => return Err(self.error("a length before this")),
                };
                self.expect("]")?;
                ty = self.make(Ty::Array { of: ty, len })?;
            }
            self.expect(";")?;
            fields.push(Named { name, ty });
        }
        Ok(fields)
    }
}
