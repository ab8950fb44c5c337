/* What most first programs are: one line, by the C library. */
#include <stdio.h>

int main(int argc, char **argv) {
    printf("Hello, %s\n", argc > 1 ? argv[1] : "WebAssembly");
    return 0;
}
