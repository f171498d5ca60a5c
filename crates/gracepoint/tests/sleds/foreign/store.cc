// Functions of C++, with sleds.
namespace sleds {

struct Store {
    long value;
    __attribute__((noinline)) long get(long x) {
        __asm__ volatile("" : "+r"(x));
        return value + x;
    }
};

}

extern "C" long foreign_store(long x) {
    sleds::Store store{40};
    return store.get(x);
}
