//! The emitter against a direct reading of the policy, through the interpreter.

use super::{
    HERE, Machine, calls,
    calls::Column,
    compile,
    interpret::{Call, run},
};
use fodder_model::sandbox::{ArgumentCondition, ArgumentTest, SeccompAction, SeccompPolicy, SeccompRule};
use proptest::{collection::vec, prelude::*, sample::select};

const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xC000_00B7;
const ARM: u32 = 0x4000_0028;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn rule(calls: &[&str], when: Vec<ArgumentTest>, action: SeccompAction) -> SeccompRule {
    let calls = calls.iter().map(|name| (*name).to_owned()).collect();
    SeccompRule { calls, when, action, lifted_by: None, why: "a test".into() }
}

fn set_id(argument: u8) -> Vec<ArgumentTest> {
    vec![ArgumentTest { argument, is: ArgumentCondition::AnyBitOf(0o6000) }]
}

fn set_id_policy() -> SeccompPolicy {
    let eperm = SeccompAction::Errno(libc::EPERM as u16);
    SeccompPolicy {
        default: SeccompAction::Allow,
        rules: vec![
            rule(&["chmod", "fchmod"], set_id(1), eperm),
            rule(&["fchmodat", "fchmodat2"], set_id(2), eperm),
            rule(&["setxattr"], vec![], SeccompAction::Errno(libc::ENOTSUP as u16)),
        ],
    }
}

fn answer(policy: &SeccompPolicy, machine: Machine, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let program = compile(policy, machine).unwrap().expect("a filter");
    run(&program, Call { number, architecture, arguments })
}

#[test]
fn set_id_is_refused_under_every_interface_of_the_machine() {
    let policy = set_id_policy();
    for (machine, architecture, column) in [
        (Machine::X86, X86_64, Column::X86_64),
        (Machine::X86, I386, Column::I386),
        (Machine::Arm, AARCH64, Column::Aarch64),
        (Machine::Arm, ARM, Column::Arm),
    ] {
        for (name, place) in [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)] {
            let Some(number) = calls::number(name, column) else {
                continue;
            };
            for (mode, expected) in [(0o4755, EPERM), (0o2755, EPERM), (0o1777, ALLOW), (0o755, ALLOW)] {
                let mut arguments = [0o7777; 6];
                arguments[place] = mode;
                assert_eq!(answer(&policy, machine, architecture, number, arguments), expected, "{name} {column:?}");
            }
        }
    }
}

#[test]
fn an_unknown_interface_is_killed_whatever_the_default() {
    for architecture in [0, ARM, AARCH64, 0xC000_003D, u32::MAX] {
        assert_eq!(answer(&set_id_policy(), Machine::X86, architecture, 0, [0; 6]), KILL);
    }
    assert_eq!(answer(&set_id_policy(), Machine::Arm, X86_64, 0, [0; 6]), KILL);
}

#[test]
fn calls_of_x32_are_absent_whatever_the_policy() {
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    for number in [0x4000_0000, 0x4000_0000 + 90, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        assert_eq!(answer(&set_id_policy(), Machine::X86, X86_64, number, [0; 6]), ENOSYS);
    }
    assert_eq!(answer(&set_id_policy(), Machine::X86, X86_64, 0x3FFF_FFFF, [0; 6]), ALLOW);
}

#[test]
fn the_high_half_of_an_argument_does_not_matter() {
    // The kernel takes the mode from the low half; a filter that compared all 64 bits could be passed by.
    let chmod = calls::number("chmod", Column::X86_64).unwrap();
    let mut arguments = [0; 6];
    arguments[1] = 0xDEAD_BEEF_0000_0000 | 0o4755;
    assert_eq!(answer(&set_id_policy(), Machine::X86, X86_64, chmod, arguments), EPERM);
    arguments[1] = 0x0000_0800_0000_0000 | 0o755;
    assert_eq!(answer(&set_id_policy(), Machine::X86, X86_64, chmod, arguments), ALLOW);
}

#[test]
fn a_policy_that_allows_everything_is_no_filter() {
    let policy = SeccompPolicy { default: SeccompAction::Allow, rules: vec![] };
    assert!(compile(&policy, HERE).unwrap().is_none());
    let policy = SeccompPolicy { default: SeccompAction::Kill, rules: vec![] };
    assert_eq!(answer(&policy, Machine::X86, X86_64, 0, [0; 6]), KILL);
}

#[test]
fn mistakes_in_a_policy_are_named() {
    let with = |rule| SeccompPolicy { default: SeccompAction::Allow, rules: vec![rule] };
    for (policy, word) in [
        (with(rule(&["read", "raed"], vec![], SeccompAction::Kill)), "raed"),
        (with(rule(&["read"], set_id(6), SeccompAction::Kill)), "not 6"),
        (with(rule(&["read"], vec![], SeccompAction::Errno(4096))), "4096"),
    ] {
        let refusal = compile(&policy, HERE).unwrap_err();
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn a_full_allow_list_fits() {
    let table = include_str!("calls.tsv");
    let names: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .filter_map(|line| line.split('\t').next())
        .collect();
    let every_other: Vec<&str> = names.iter().copied().step_by(2).collect();
    let eperm = SeccompAction::Errno(libc::EPERM as u16);
    let policy = SeccompPolicy {
        default: SeccompAction::Errno(libc::ENOSYS as u16),
        rules: vec![rule(&every_other, vec![], SeccompAction::Allow), rule(&names, set_id(1), eperm)],
    };
    for machine in [Machine::X86, Machine::Arm] {
        assert!(compile(&policy, machine).is_ok());
    }
}

/// The policy read line by line, as its documentation says.
fn expected(policy: &SeccompPolicy, names: &[&str], arguments: [u64; 6]) -> SeccompAction {
    let holds = |test: &ArgumentTest| {
        let low = arguments[usize::from(test.argument)] as u32;
        match &test.is {
            ArgumentCondition::AnyBitOf(bits) => low & bits != 0,
            ArgumentCondition::OneOf(values) => values.contains(&low),
            ArgumentCondition::NoneOf(values) => !values.contains(&low),
        }
    };
    let matches = |rule: &&SeccompRule| {
        rule.calls.iter().any(|call| names.contains(&call.as_str())) && rule.when.iter().all(holds)
    };
    policy.rules.iter().find(matches).map_or(policy.default, |rule| rule.action)
}

/// Few values, so that tests and arguments meet.
fn small() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 2, 3, 4, 8, 0o4000, 0o6000, u32::MAX, 0x8000_0000])
}

fn a_policy() -> impl Strategy<Value = SeccompPolicy> {
    let action = || {
        prop_oneof![Just(SeccompAction::Allow), Just(SeccompAction::Kill), (1_u16..40).prop_map(SeccompAction::Errno)]
    };
    let condition = prop_oneof![
        small().prop_map(ArgumentCondition::AnyBitOf),
        vec(small(), 0..4).prop_map(ArgumentCondition::OneOf),
        vec(small(), 0..4).prop_map(ArgumentCondition::NoneOf),
    ];
    let test = (0_u8..6, condition).prop_map(|(argument, is)| ArgumentTest { argument, is });
    let calls = vec(select(SAMPLE), 1..6).prop_map(|names| names.into_iter().map(str::to_owned).collect());
    let rule = (calls, vec(test, 0..3), action()).prop_map(|(calls, when, action)| SeccompRule {
        calls,
        when,
        action,
        lifted_by: None,
        why: "a property".into(),
    });
    (action(), vec(rule, 1..8)).prop_map(|(default, rules)| SeccompPolicy { default, rules })
}

const SAMPLE: &[&str] =
    &["read", "write", "chmod", "fchmodat", "ioctl", "clone", "socketcall", "openat2", "execve", "io_uring_setup"];

proptest! {
    #[test]
    fn the_filter_answers_as_the_policy_reads(
        policy in a_policy(),
        name in select(SAMPLE),
        nudge in -1_i64..=1,
        (machine, architecture, column) in select(vec![
            (Machine::X86, X86_64, Column::X86_64),
            (Machine::X86, I386, Column::I386),
            (Machine::Arm, AARCH64, Column::Aarch64),
            (Machine::Arm, ARM, Column::Arm),
        ]),
        low in [small(), small(), small(), small(), small(), small()],
        high in any::<u32>(),
    ) {
        let arguments = low.map(|low| u64::from(high) << 32 | u64::from(low));
        let Some(number) = calls::number(name, column) else { return Ok(()) };
        // A neighbour, too: an off-by-one of the bisection shows there.
        let Ok(number) = u32::try_from(i64::from(number) + nudge) else { return Ok(()) };
        let names: Vec<&str> =
            SAMPLE.iter().filter(|name| calls::number(name, column) == Some(number)).copied().collect();
        let wanted = match expected(&policy, &names, arguments) {
            SeccompAction::Allow => ALLOW,
            SeccompAction::Kill => KILL,
            SeccompAction::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        };
        prop_assert_eq!(answer(&policy, machine, architecture, number, arguments), wanted);
    }
}
