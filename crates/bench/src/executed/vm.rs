//! A machine for a program's instructions. It is there to count them: the kernel does not say how many a packet takes.
//!
//! What the verifier has accepted needs no second verifier: an address that is nowhere or an instruction that is not
//! known ends the run with an error.
#![expect(clippy::cast_possible_truncation, reason = "registers are cut as the machine does it")]

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use aya_obj::Object;
use aya_obj::generated::bpf_insn;

/// Bytes of a region of memory; its number is above them in an address. All addresses fit 32 bits, as those of a packet
/// must.
const REGION_BITS: u32 = 24;
/// A pointer to a map: its number is in the low half.
const MAP: u64 = 1 << 40;
const STACK_BYTES: usize = 512;
const MOST_INSTRUCTIONS: u32 = 1_000_000;

/// What programs ask of the kernel.
pub(crate) trait Helpers {
    /// Calls a helper with the arguments in registers 1 to 5; its result.
    fn call(&mut self, number: i32, arguments: [u64; 5], memory: &mut Memory, maps: &[String])
    -> Result<u64>;
}

/// Memory in regions.
#[derive(Default)]
pub(crate) struct Memory(Vec<Vec<u8>>);

impl Memory {
    /// Adds a region; its address.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> u64 {
        self.0.push(bytes);
        (self.0.len() as u64) << REGION_BITS
    }

    pub(crate) fn bytes(&mut self, address: u64, length: usize) -> Result<&mut [u8]> {
        let region = (address >> REGION_BITS).wrapping_sub(1) as usize;
        let offset = (address & ((1 << REGION_BITS) - 1)) as usize;
        let bytes = self.0.get_mut(region).and_then(|bytes| bytes.get_mut(offset..offset + length));
        bytes.with_context(|| format!("{length} bytes at {address:#x} are nowhere"))
    }

    fn load(&mut self, address: u64, length: usize) -> Result<u64> {
        let mut word = [0; 8];
        word[..length].copy_from_slice(self.bytes(address, length)?);
        Ok(u64::from_le_bytes(word))
    }

    fn store(&mut self, address: u64, length: usize, value: u64) -> Result<()> {
        self.bytes(address, length)?.copy_from_slice(&value.to_le_bytes()[..length]);
        Ok(())
    }
}

/// A program that can be run.
pub(crate) struct Code {
    instructions: Vec<bpf_insn>,
    maps: Vec<String>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) instructions: u32,
    pub(crate) result: i32,
}

/// Where a function returns to, and what it must find there.
struct Frame {
    next: usize,
    kept: [u64; 5],
}

impl Code {
    /// A program of an object, with the functions it calls.
    pub(crate) fn of(object: &[u8], name: &str) -> Result<Self> {
        let mut object = Object::parse(object)?;
        let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let numbered = (0..).zip(&maps).map(|(number, (name, map))| (name.as_str(), number, map));
        object.relocate_maps(numbered, &sections)?;
        object.relocate_calls(&sections)?;
        let key = object.programs.get(name).with_context(|| format!("no {name}"))?.function_key();
        let function = object.functions.get(&key).context("a program without code")?;
        let maps = maps.into_iter().map(|(name, _)| name).collect();
        Ok(Self { instructions: function.instructions.clone(), maps })
    }

    /// Runs it with `context` in register 1.
    pub(crate) fn run(&self, context: u64, memory: &mut Memory, helpers: &mut impl Helpers) -> Result<Ran> {
        let mut r = [0; 11];
        r[1] = context;
        r[10] = memory.add(vec![0; STACK_BYTES]) + STACK_BYTES as u64;
        let (mut next, mut instructions, mut frames) = (0, 0, Vec::new());
        loop {
            let i = self.instructions.get(next).context("the program has no end")?;
            instructions += 1;
            ensure!(instructions <= MOST_INSTRUCTIONS, "the program does not end");
            next += 1;
            let (dst, src) = (usize::from(i.dst_reg()), usize::from(i.src_reg()));
            let imm = i64::from(i.imm).cast_unsigned();
            let operand = if i.code & 8 != 0 { r[src] } else { imm };
            let at = |register: u64| register.wrapping_add_signed(i.off.into());
            match i.code & 7 {
                0 if i.code == 0x18 => {
                    let high = self.instructions.get(next).context("half an instruction")?.imm;
                    next += 1;
                    r[dst] = match src {
                        0 => u64::from(i.imm.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32,
                        1 => MAP | imm,
                        _ => bail!("an address of kind {src}"),
                    };
                }
                1 if i.code & 0xe0 == 0x60 => r[dst] = memory.load(at(r[src]), length(i.code))?,
                1 if i.code & 0xe0 == 0x80 => {
                    let length = length(i.code);
                    r[dst] = extend(memory.load(at(r[src]), length)?, length);
                }
                2 if i.code & 0xe0 == 0x60 => memory.store(at(r[dst]), length(i.code), imm)?,
                3 if i.code & 0xe0 == 0x60 => memory.store(at(r[dst]), length(i.code), r[src])?,
                4 | 7 => r[dst] = calculate(*i, r[dst], operand)?,
                5 if i.code == 0x85 && src == 1 => {
                    frames.push(Frame { next, kept: [r[6], r[7], r[8], r[9], r[10]] });
                    next = next.wrapping_add_signed(i.imm as isize);
                    r[10] = memory.add(vec![0; STACK_BYTES]) + STACK_BYTES as u64;
                }
                5 if i.code == 0x85 => {
                    r[0] = helpers.call(i.imm, [r[1], r[2], r[3], r[4], r[5]], memory, &self.maps)?;
                }
                5 if i.code == 0x95 => match frames.pop() {
                    Some(frame) => {
                        next = frame.next;
                        [r[6], r[7], r[8], r[9], r[10]] = frame.kept;
                    }
                    None => return Ok(Ran { instructions, result: r[0] as i32 }),
                },
                5 | 6 => {
                    if jumps(i.code, r[dst], operand)? {
                        let far = if i.code == 0x06 { i.imm as isize } else { i.off.into() };
                        next = next.wrapping_add_signed(far);
                    }
                }
                _ => bail!("an instruction {:#x}", i.code),
            }
        }
    }
}

/// The name of the map that a pointer is to.
pub(crate) fn map_of(pointer: u64, maps: &[String]) -> Result<&str> {
    let number = (pointer ^ MAP) as usize;
    maps.get(number).map(String::as_str).with_context(|| format!("{pointer:#x} is no map"))
}

/// Bytes that a load or store moves.
const fn length(code: u8) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

const fn extend(value: u64, bytes: usize) -> u64 {
    let unused = 64 - 8 * bytes as u32;
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

fn calculate(i: bpf_insn, a: u64, b: u64) -> Result<u64> {
    let is_wide = i.code & 7 == 7;
    let (a, b) = if is_wide { (a, b) } else { (a & 0xffff_ffff, b & 0xffff_ffff) };
    let bits = if is_wide { 63 } else { 31 };
    let shift = (b & bits) as u32;
    let result = match i.code & 0xf0 {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 if i.off == 0 => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a << shift,
        0x70 => a >> shift,
        0x80 => a.wrapping_neg(),
        0x90 if i.off == 0 => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        0xb0 if i.off == 0 => b,
        0xb0 => extend(b, usize::from(i.off.unsigned_abs()) / 8),
        0xc0 if is_wide => (a.cast_signed() >> shift).cast_unsigned(),
        0xc0 => extend(a, 4).cast_signed().wrapping_shr(shift).cast_unsigned(),
        // Always, or to network order on a machine of the other one; to its own order nothing changes.
        0xd0 if is_wide || i.code & 8 != 0 => a.swap_bytes() >> (64 - i.imm),
        0xd0 => a,
        _ => bail!("arithmetic {:#x}", i.code),
    };
    Ok(if is_wide { result } else { result & 0xffff_ffff })
}

fn jumps(code: u8, a: u64, b: u64) -> Result<bool> {
    let is_wide = code & 7 == 5;
    let (a, b) = if is_wide { (a, b) } else { (a & 0xffff_ffff, b & 0xffff_ffff) };
    let signed = |value| if is_wide { value } else { extend(value, 4) }.cast_signed();
    Ok(match code & 0xf0 {
        0x00 => true,
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => signed(a) > signed(b),
        0x70 => signed(a) >= signed(b),
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => signed(a) < signed(b),
        0xd0 => signed(a) <= signed(b),
        _ => bail!("a jump {code:#x}"),
    })
}
