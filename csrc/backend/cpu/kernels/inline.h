// Owns NOS_INLINE, which marks the functions inside the loops of block kernels.
#pragma once

#define NOS_INLINE [[gnu::always_inline]] static inline
