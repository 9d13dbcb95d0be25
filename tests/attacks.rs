//! What hostile builds try. Each attack names itself as the notes on security do (`Attack:`), and the layer that stops it (`Layer:`);
//! `docs/security.md` is made of these lines. A control run shows that the attack would work without the layer.

mod outputs; // after the builder: writers, links, modes, names
