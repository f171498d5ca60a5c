/* Functions of C, with sleds. */
#define NOINLINE __attribute__((noinline))

NOINLINE long foreign_leaf(long x) {
    __asm__ volatile("" : "+r"(x));
    return x + 1;
}

NOINLINE long foreign_outer(long x) {
    return foreign_leaf(x) + foreign_leaf(x + 1);
}

/* Goes over into the leaf. */
NOINLINE long foreign_tail(long x) {
    return foreign_leaf(x + 10);
}
