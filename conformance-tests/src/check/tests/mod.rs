//! Histories written by hand that show each kind of violation, with one beside each that only looks like it; and a store in
//! miniature whose histories are right until a fault is put into them.

mod delivery;
mod ids;
mod leases;
mod ledger;
mod loss;
mod order;
mod real;
mod simulated;
mod speed;
mod store;
mod time;
mod written;

use written::Written;
