//! What a policy says about each call, before any instruction is thought of.

use super::calls;
use fodder_model::sandbox::{ArgumentTest, SeccompAction, SeccompPolicy, SeccompRule};
use std::collections::BTreeMap;

/// The largest errno that the kernel passes on (MAX_ERRNO); it cuts larger ones to it.
const LARGEST_ERRNO: u16 = 4095;

/// The answer to one call: the first line whose tests all hold, else the last resort.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decision<'policy> {
    pub(super) lines: Vec<Line<'policy>>,
    pub(super) otherwise: Answer,
}

/// Tests and the answer when all of them hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line<'policy> {
    pub(super) tests: Vec<Test<'policy>>,
    pub(super) answer: Answer,
}

/// An argument test in a form that can be ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test<'policy> {
    pub(super) argument: u8,
    pub(super) condition: Condition<'policy>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition<'policy> {
    AnyBit(u32),
    Listed(&'policy [u32]),
    Unlisted(&'policy [u32]),
}

/// What a filter returns, see seccomp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer(pub(super) u32);

impl From<SeccompAction> for Answer {
    fn from(action: SeccompAction) -> Self {
        Answer(match action {
            SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
            SeccompAction::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            SeccompAction::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        })
    }
}

/// Finds what no filter could express.
pub(super) fn check(policy: &SeccompPolicy) -> Result<(), String> {
    let SeccompPolicy { default, rules } = policy;
    check_action(*default)?;
    for SeccompRule { calls, when, action, lifted_by: _, why } in rules {
        check_action(*action)?;
        if let Some(unknown) = calls.iter().find(|name| !calls::is_known(name)) {
            return Err(format!("no architecture has a system call '{unknown}' (in the seccomp rule: {why})"));
        }
        if let Some(ArgumentTest { argument, is: _ }) = when.iter().find(|test| test.argument > 5) {
            return Err(format!("system calls have arguments 0 to 5, not {argument} (in the seccomp rule: {why})"));
        }
    }
    Ok(())
}

fn check_action(action: SeccompAction) -> Result<(), String> {
    match action {
        SeccompAction::Errno(errno) if errno > LARGEST_ERRNO => Err(format!("{errno} is not an errno (seccomp)")),
        SeccompAction::Allow | SeccompAction::Errno(_) | SeccompAction::Kill => Ok(()),
    }
}

/// The decision for every call of the interface that some rule names, by number.
pub(super) fn table(policy: &SeccompPolicy, column: calls::Column) -> BTreeMap<u32, Decision<'_>> {
    let SeccompPolicy { default, rules } = policy;
    let mut table = BTreeMap::new();
    for name in rules.iter().flat_map(|rule| &rule.calls) {
        if let Some(number) = calls::number(name, column) {
            // Two names of one call would have to be decided together; the table has none.
            table.entry(number).or_insert_with(|| decide(rules, name, *default));
        }
    }
    table
}

fn decide<'policy>(rules: &'policy [SeccompRule], name: &str, default: SeccompAction) -> Decision<'policy> {
    let mut lines = Vec::new();
    for SeccompRule { calls, when, action, lifted_by: _, why: _ } in rules {
        if !calls.iter().any(|call| call == name) {
            continue;
        }
        if when.is_empty() {
            return Decision { lines, otherwise: (*action).into() };
        }
        lines.push(Line { tests: when.iter().map(Test::from).collect(), answer: (*action).into() });
    }
    Decision { lines, otherwise: default.into() }
}

impl<'policy> From<&'policy ArgumentTest> for Test<'policy> {
    fn from(test: &'policy ArgumentTest) -> Self {
        use fodder_model::sandbox::ArgumentCondition;
        let ArgumentTest { argument, is } = test;
        let condition = match is {
            ArgumentCondition::AnyBitOf(bits) => Condition::AnyBit(*bits),
            ArgumentCondition::OneOf(values) => Condition::Listed(values),
            ArgumentCondition::NoneOf(values) => Condition::Unlisted(values),
        };
        Test { argument: *argument, condition }
    }
}
