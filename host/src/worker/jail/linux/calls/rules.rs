//! What a filter says about each call, in few words.

use seccompiler::{
    BackendError, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};
use std::collections::BTreeMap;

/// A condition on one argument, by its position.
pub(super) type Condition = Result<SeccompCondition, BackendError>;

/// For each call, the conditions under which it is meant: one rule of several suffices,
/// all conditions of a rule must hold, and without a rule it is meant always.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    /// These calls, whatever their arguments.
    pub(super) fn any(mut self, calls: &[libc::c_long]) -> Self {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
        self
    }

    /// This call, under these conditions.
    pub(super) fn one<const N: usize>(
        mut self,
        call: libc::c_long,
        conditions: [Condition; N],
    ) -> Result<Self, BackendError> {
        let conditions = conditions.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.0.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(self)
    }

    /// This call, if an argument is one of `values`.
    pub(super) fn each(
        self,
        call: libc::c_long,
        position: u8,
        values: &[u32],
    ) -> Result<Self, BackendError> {
        values.iter().try_fold(self, |rules, value| rules.one(call, [is(position, *value)]))
    }
}

impl From<Rules> for BTreeMap<i64, Vec<SeccompRule>> {
    fn from(rules: Rules) -> Self {
        rules.0
    }
}

/// It is this number, of 32 bits.
pub(super) fn is(position: u8, value: u32) -> Condition {
    SeccompCondition::new(position, Len::Dword, Op::Eq, value.into())
}

/// It is a pointer to nothing.
pub(super) fn null(position: u8) -> Condition {
    SeccompCondition::new(position, Len::Qword, Op::Eq, 0)
}

/// Of the bits of `mask` it has these.
pub(super) fn bits(position: u8, mask: u32, value: u32) -> Condition {
    SeccompCondition::new(position, Len::Dword, Op::MaskedEq(mask.into()), value.into())
}

/// It has all bits of `mask`.
pub(super) fn all_bits(position: u8, mask: u32) -> Condition {
    bits(position, mask, mask)
}
