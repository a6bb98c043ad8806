//! WHAT THE USER SAID: raw file + environment + flags → a [`Config`] that cannot be wrong.
//!
//! May import: every room's settings; is imported by `app` and `main` only.
