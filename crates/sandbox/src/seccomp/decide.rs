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

/// The decision for every call that some rule names, by name.
pub(super) fn by_name(policy: &SeccompPolicy) -> BTreeMap<&str, Decision<'_>> {
    let SeccompPolicy { default, rules } = policy;
    let mut open: BTreeMap<&str, Vec<Line<'_>>> = BTreeMap::new();
    let mut decided = BTreeMap::new();
    for SeccompRule { calls, when, action, lifted_by: _, why: _ } in rules {
        for name in calls.iter().map(String::as_str) {
            if decided.contains_key(name) {
                continue;
            }
            if when.is_empty() {
                let lines = open.remove(name).unwrap_or_default();
                decided.insert(name, Decision { lines, otherwise: (*action).into() });
            } else {
                let tests = when.iter().map(Test::from).collect();
                open.entry(name).or_default().push(Line { tests, answer: (*action).into() });
            }
        }
    }
    let undecided = |(name, lines)| (name, Decision { lines, otherwise: (*default).into() });
    decided.extend(open.into_iter().map(undecided));
    decided
}

/// The same by number, for the calls that this interface has.
pub(super) fn by_number<'policy>(
    decisions: &BTreeMap<&'policy str, Decision<'policy>>,
    column: calls::Column,
) -> BTreeMap<u32, Decision<'policy>> {
    // Two names of one call would have to be decided together; the table has none.
    decisions.iter().filter_map(|(name, decision)| Some((calls::number(name, column)?, decision.clone()))).collect()
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
