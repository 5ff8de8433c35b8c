//! The scripts. Each consists of one file, with the shared files in front.

use crate::transport::Script;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $repeatable:ident: $first:literal $($then:literal)*;)*) => {$(
        $(#[$doc])*
        pub(crate) static $name: Script = Script::new(
            scripts!(@last $first $($then)*),
            concat!(
                include_str!(concat!("scripts/", $first, ".lua"))
                $(, "\n", include_str!(concat!("scripts/", $then, ".lua")))*
            ),
            scripts!(@ $repeatable),
        );
    )*    };
    (@ repeatable) => { true };
    (@ once) => { false };
    (@last $one:literal) => { $one };
    (@last $first:literal $($then:literal)+) => { scripts!(@last $($then)+) };
}

scripts! {
    SCHEDULE = once: "common" "schedule";
    /// With the same claim id, a retry first releases the tasks of the first try, then claims again.
    CLAIM = repeatable: "common" "claim";
    SETTLE = once: "common" "settle";
    EXTEND = repeatable: "common" "extend";
    CHANGE_TASKS = once: "common" "change" "change_tasks";
    CHANGE_GROUP = once: "common" "change" "change_group";
    FIND = repeatable: "common" "find";
    LIST = repeatable: "common" "list";
    STATS = repeatable: "common" "stats";
    DEAD_LIST = repeatable: "common" "dead_list";
    DEAD_IDS = repeatable: "common" "dead_ids";
    DEAD_REDRIVE = once: "common" "dead_redrive";
    DEAD_PURGE = once: "common" "dead_purge";
    PAUSE = repeatable: "common" "pause";
    DELETE = repeatable: "common" "delete";
    OPERATION = repeatable: "operation";
    TYPES = repeatable: "types";
}
