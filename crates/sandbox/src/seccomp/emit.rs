//! From decisions to classic BPF. Call numbers are looked up by bisection; argument tests are shared by all calls that
//! are decided alike. Conditional jumps only ever skip one instruction, so their 8-bit reach is never an issue; the long
//! way is gone by unconditional jumps, which have 32 bits and, like all jumps of BPF, lead forward.

use super::decide::{Answer, Condition, Decision, Line, Test};
use fodder_model::sandbox::SeccompAction;
use libc::{BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use std::collections::BTreeMap;

/// BPF_MAXINSNS of linux/bpf_common.h.
const LONGEST_PROGRAM: usize = 4096;

// Offsets into `struct seccomp_data`. The low half of an argument comes first: both machines are little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// One interface with the decisions about its calls.
pub(super) struct Section<'policy> {
    pub(super) audit: u32,
    /// Numbers from here on are answered with ENOSYS.
    pub(super) absent_from: Option<u32>,
    pub(super) table: BTreeMap<u32, Decision<'policy>>,
}

/// One program for several interfaces. A call of an interface that is not among them kills the process: its arguments could
/// not be judged.
pub(super) fn program(interfaces: &[Section<'_>], default: SeccompAction) -> Result<Vec<sock_filter>, String> {
    const ABSENT: Answer = Answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let default = Decision { lines: Vec::new(), otherwise: default.into() };
    let mut emitter = Emitter::default();
    let mut blocks = BTreeMap::new();

    emitter.load(ARCHITECTURE);
    let sections: Vec<(Label, &Section<'_>)> = interfaces
        .iter()
        .map(|section| {
            let label = emitter.new_label();
            emitter.jump_if(BPF_JEQ, section.audit, label);
            (label, section)
        })
        .collect();
    emitter.answer(Answer(libc::SECCOMP_RET_KILL_PROCESS));
    for (label, Section { audit: _, absent_from, table }) in sections {
        emitter.place(label);
        emitter.load(NUMBER);
        if let Some(first) = absent_from {
            let present = emitter.new_label();
            emitter.jump_unless(BPF_JGE, *first, present);
            emitter.answer(ABSENT);
            emitter.place(present);
        }
        bisect(&mut emitter, &ranges(table, &default), &mut blocks);
    }
    for (decision, block) in blocks {
        emitter.place(block);
        emit_decision(&mut emitter, decision);
    }
    emitter.finish()
}

/// The number from which a decision holds, up to the next one's. The first is 0.
type Range<'a, 'policy> = (u32, &'a Decision<'policy>);

fn ranges<'a, 'policy>(
    table: &'a BTreeMap<u32, Decision<'policy>>,
    default: &'a Decision<'policy>,
) -> Vec<Range<'a, 'policy>> {
    let mut ranges: Vec<Range<'a, 'policy>> = vec![(0, default)];
    for (&number, decision) in table {
        ranges.push((number, decision));
        ranges.push((number + 1, default));
    }
    // Of several that begin at one number the last counts; of equal neighbours one is enough.
    let mut merged: Vec<Range<'a, 'policy>> = Vec::new();
    for (start, decision) in ranges {
        if merged.last().is_some_and(|(last, _)| *last == start) {
            merged.pop();
        }
        if merged.last().is_none_or(|(_, last)| *last != decision) {
            merged.push((start, decision));
        }
    }
    merged
}

fn bisect<'a, 'policy>(
    emitter: &mut Emitter,
    ranges: &[Range<'a, 'policy>],
    blocks: &mut BTreeMap<&'a Decision<'policy>, Label>,
) {
    if let [(_, decision)] = ranges {
        if decision.lines.is_empty() {
            emitter.answer(decision.otherwise);
        } else {
            let block = *blocks.entry(decision).or_insert_with(|| emitter.new_label());
            emitter.jump(block);
        }
        return;
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let above = emitter.new_label();
    emitter.jump_if(BPF_JGE, upper[0].0, above);
    bisect(emitter, lower, blocks);
    emitter.place(above);
    bisect(emitter, upper, blocks);
}

fn emit_decision(emitter: &mut Emitter, decision: &Decision<'_>) {
    let Decision { lines, otherwise } = decision;
    for Line { tests, answer } in lines {
        let next = emitter.new_label();
        for Test { argument, condition } in tests {
            emitter.load(ARGUMENTS + ARGUMENT_BYTES * u32::from(*argument));
            let holds = emitter.new_label();
            match condition {
                Condition::AnyBit(bits) => {
                    emitter.jump_if(BPF_JSET, *bits, holds);
                    emitter.jump(next);
                }
                Condition::Listed(values) => {
                    values.iter().for_each(|value| emitter.jump_if(BPF_JEQ, *value, holds));
                    emitter.jump(next);
                }
                Condition::Unlisted(values) => {
                    values.iter().for_each(|value| emitter.jump_if(BPF_JEQ, *value, next));
                }
            }
            emitter.place(holds);
        }
        emitter.answer(*answer);
        emitter.place(next);
    }
    emitter.answer(*otherwise);
}

/// A place in the program that may be jumped to before it is known.
type Label = usize;

enum Instruction {
    Plain(sock_filter),
    Jump(Label),
}

#[derive(Default)]
struct Emitter {
    instructions: Vec<Instruction>,
    /// Where each label is, once placed.
    labels: Vec<Option<usize>>,
}

impl Emitter {
    fn new_label(&mut self) -> Label {
        self.labels.push(None);
        self.labels.len() - 1
    }

    fn place(&mut self, label: Label) {
        self.labels[label] = Some(self.instructions.len());
    }

    fn plain(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        self.instructions.push(Instruction::Plain(sock_filter { code: code as u16, jt, jf, k }));
    }

    fn load(&mut self, offset: u32) {
        self.plain(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
    }

    fn answer(&mut self, Answer(value): Answer) {
        self.plain(BPF_RET | BPF_K, 0, 0, value);
    }

    fn jump(&mut self, label: Label) {
        self.instructions.push(Instruction::Jump(label));
    }

    fn jump_if(&mut self, comparison: u32, with: u32, label: Label) {
        self.plain(BPF_JMP | comparison | BPF_K, 0, 1, with);
        self.jump(label);
    }

    fn jump_unless(&mut self, comparison: u32, with: u32, label: Label) {
        self.plain(BPF_JMP | comparison | BPF_K, 1, 0, with);
        self.jump(label);
    }

    fn finish(self) -> Result<Vec<sock_filter>, String> {
        let Emitter { instructions, labels } = self;
        if instructions.len() > LONGEST_PROGRAM {
            let length = instructions.len();
            return Err(format!("the seccomp filter has {length} instructions, the kernel takes {LONGEST_PROGRAM}"));
        }
        let resolve = |(place, instruction)| match instruction {
            Instruction::Plain(filter) => Ok(filter),
            Instruction::Jump(label) => {
                let distance = labels[label].and_then(|target: usize| target.checked_sub(place + 1));
                let k = distance.and_then(|distance| u32::try_from(distance).ok());
                let k = k.ok_or_else(|| "the seccomp emitter jumped backwards".to_owned())?;
                Ok(sock_filter { code: (BPF_JMP | BPF_JA) as u16, jt: 0, jf: 0, k })
            }
        };
        instructions.into_iter().enumerate().map(resolve).collect()
    }
}
