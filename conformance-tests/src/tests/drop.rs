//! DROP: every future may be dropped at any await point.
