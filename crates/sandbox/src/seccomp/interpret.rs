//! What the kernel does with a filter, in a screenful: the oracle of the emitter's tests. Knows just the instructions
//! that seccomp(2) allows and we use; anything else, and any step outside the program, is a panic.

use libc::{BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

/// What the filter answers.
pub(super) fn run(program: &[sock_filter], call: Call) -> u32 {
    const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
    const ANSWER: u32 = BPF_RET | BPF_K;
    const JUMP: u32 = BPF_JMP | BPF_JA;
    const EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const AT_LEAST: u32 = BPF_JMP | BPF_JGE | BPF_K;
    const ANY_BIT: u32 = BPF_JMP | BPF_JSET | BPF_K;
    let mut accumulator = 0;
    let mut place = 0;
    loop {
        let sock_filter { code, jt, jf, k } = program[place];
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        place += 1 + match u32::from(code) {
            LOAD => {
                accumulator = word(call, k);
                0
            }
            ANSWER => return k,
            JUMP => k as usize,
            EQUAL => branch(accumulator == k),
            AT_LEAST => branch(accumulator >= k),
            ANY_BIT => branch(accumulator & k != 0),
            unknown => panic!("instruction {unknown:#x} at {place}"),
        };
    }
}

fn word(call: Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.architecture,
        16..64 => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
        unknown => panic!("load from {unknown}"),
    }
}
