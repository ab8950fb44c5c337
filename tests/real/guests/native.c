/* A C program that ends in as many ways as its first argument can name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int args(int argc, char **argv) {
    for (int i = 1; i < argc; i++) printf("%d: %s\n", i, argv[i]);
    return 0;
}

/* Adds up the numbers on stdin, one a line. */
static int sum(void) {
    long long total = 0, number;
    while (scanf("%lld", &number) == 1) total += number;
    printf("%lld\n", total);
    return 0;
}

static char *volatile last; /* Without it the compiler would see blocks that nobody reads, and drop them. */

/* Allocates and touches 1 MiB at a time until malloc refuses, then says how much there was. */
static int fill(void) {
    int mebibytes = 0;
    while ((last = malloc(1 << 20)) != NULL) {
        memset(last, 0x5a, 1 << 20);
        mebibytes++;
    }
    printf("%d MiB\n", mebibytes);
    return 0;
}

static volatile long one = 1;

/* Neither a loop nor a frame in linear memory can stand in for this: every call takes some of the real stack. */
static long deep(long levels) {
    return levels == 0 ? one : deep(levels - 1) / 3 + one;
}

static int recurse(void) {
    printf("%ld\n", deep(1000000000));
    return 0;
}

static int spin(void) {
    for (volatile unsigned long turns = 0;; turns++) continue;
}

static int doze(void) {
    sleep(3600);
    return 0;
}

static int look(void) {
    FILE *file = fopen("/etc/passwd", "r");
    puts(file ? "opened" : "refused");
    return 0;
}

int main(int argc, char **argv) {
    const char *wish = argc > 1 ? argv[1] : "args";
    if (!strcmp(wish, "exit")) return argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(wish, "sum")) return sum();
    if (!strcmp(wish, "fill")) return fill();
    if (!strcmp(wish, "recurse")) return recurse();
    if (!strcmp(wish, "spin")) return spin();
    if (!strcmp(wish, "doze")) return doze();
    if (!strcmp(wish, "look")) return look();
    if (!strcmp(wish, "abort")) abort();
    return args(argc, argv);
}
