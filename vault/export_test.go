package vault

// Live is how many values are in the memory that is kept out of swap.
func (v *Vault) Live() int { return v.store.memory.arena.Live() }
