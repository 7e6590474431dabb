/*
 * The clients of `bench/load.py`, once they are connected: reads what they receive, and counts it.
 *
 *     load [-b BYTES | -m MARK | -a KEY [-s START]] [-q] DESCRIPTOR...
 *
 * Messages are counted by their length (-b), by a character that each has once (-m), or by the
 * time in each (-a): the seconds since 1970 after the text KEY and a colon; where KEY occurs several
 * times, the first one behind the text START counts. -q acknowledges at once what was read.
 *
 * It does as little as possible: one epoll, one `recv` into one buffer, one addition. When it falls
 * behind, one `recv` takes several frames, so it catches up. It answers each line of standard input:
 *
 *     expect N M    [first, median, last]: when the first, the middle and the last client had N more
 *                   messages, by the monotonic clock; up to M more may have arrived as well
 *     examine N 0   the same, then what the clients received: each distinct byte string once, in
 *                   hexadecimal digits, and how many clients received it
 *     ages 0 0      [count]: the messages since the last `ages`, and that many floats: how old each
 *                   was when it was received, in milliseconds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 1 << 20,   /* the most that one `recv` takes; more than any burst */
    REST_BYTES = 1 << 16,     /* the most of an incomplete message that is kept */
    EVENTS = 1024,
    PATIENCE_MILLISECONDS = 60000,
};

struct bytes {
    char *start;
    size_t length, capacity;
};

struct client {
    int descriptor;
    long received;
    double reached;    /* when it had all that is due */
    struct bytes rest; /* with -a: what may be the beginning of a message */
    struct bytes kept; /* during `examine`: all that it received */
};

static struct {
    long frame_bytes;
    char mark;
    const char *start, *key;
    int acknowledges;
} how;

static struct client *clients;
static int count;

/* The command that is not answered yet. */
static struct {
    char verb[16];
    long due, most; /* in the unit of `received` */
    int missing;    /* clients that have less than is due */
} command;

static struct bytes ages;
static char buffer[REST_BYTES + BUFFER_BYTES + 1];

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void append(struct bytes *to, const void *from, size_t length)
{
    if (to->length + length > to->capacity) {
        to->capacity = 2 * (to->length + length);
        to->start = realloc(to->start, to->capacity);
        if (!to->start)
            fail("no memory left for what the clients received");
    }
    memcpy(to->start + to->length, from, length);
    to->length += length;
}

static const char *find(const char *from, const char *end, const char *text)
{
    return memmem(from, (size_t)(end - from), text, strlen(text));
}

/* Note the age of each message that is complete; return where the rest begins. */
static const char *note_ages(const char *place, const char *end, long *messages)
{
    double at = seconds(CLOCK_REALTIME);
    const char *start, *number;
    while ((start = find(place, end, how.start)) != NULL) {
        if (!(number = find(start, end, how.key)))
            return start;
        number += strlen(how.key);
        number += strspn(number, " :");
        char *behind;
        double then = strtod(number, &behind);
        if (number == end || behind == end) /* the next digits are still to come */
            return start;
        float age = (float)((at - then) * 1000);
        append(&ages, &age, sizeof age);
        ++*messages;
        place = behind;
    }
    /* A START may have begun at the end. */
    size_t partial = strlen(how.start) - 1;
    return (size_t)(end - place) > partial ? end - partial : place;
}

static long count_ages(struct client *client, char *data, char *end)
{
    long messages = 0;
    const char *rest = note_ages(data, end, &messages);
    size_t length = (size_t)(end - rest);
    if (length > REST_BYTES)
        fail("a message of more than %d bytes", REST_BYTES);
    client->rest.length = 0;
    append(&client->rest, rest, length);
    return messages;
}

static long count_marks(const char *data, const char *end)
{
    long marks = 0;
    const char mark = how.mark;
    for (; data < end; ++data)
        marks += *data == mark;
    return marks;
}

static void receive(struct client *client)
{
    char *data = buffer + client->rest.length;
    memcpy(buffer, client->rest.start ? client->rest.start : "", client->rest.length);
    ssize_t length = recv(client->descriptor, data, BUFFER_BYTES, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0)
        fail("the server closed a connection");
    data[length] = '\0';
    if (how.acknowledges) /* the kernel resets this option, so it is set again after each read */
        setsockopt(client->descriptor, IPPROTO_TCP, TCP_QUICKACK, &how.acknowledges, sizeof(int));
    if (!strcmp(command.verb, "examine"))
        append(&client->kept, data, (size_t)length);
    long before = client->received;
    if (how.key)
        client->received += count_ages(client, buffer, data + length);
    else
        client->received += how.mark ? count_marks(data, data + length) : length;
    if (command.missing && client->received >= command.due) {
        command.missing -= before < command.due;
        if (before < command.due)
            client->reached = seconds(CLOCK_MONOTONIC);
        if (client->received > command.most)
            fail("a client received more than was published");
    }
}

static int ascending(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void print_times(void)
{
    double *times = malloc(sizeof(double) * (size_t)count);
    if (!times)
        fail("no memory left for the times");
    for (int number = 0; number < count; ++number)
        times[number] = clients[number].reached;
    qsort(times, (size_t)count, sizeof(double), ascending);
    printf("[%.9f, %.9f, %.9f", times[0], times[count / 2], times[count - 1]);
    free(times);
}

/* Print each distinct byte string, and how many clients received it; forget them all. */
static void print_kept(void)
{
    for (int number = 0; number < count; ++number) {
        struct bytes one = clients[number].kept;
        if (!one.start)
            continue;
        int equal = 0;
        for (int other = number; other < count; ++other) {
            struct bytes *kept = &clients[other].kept;
            if (kept->length != one.length || memcmp(kept->start, one.start, one.length))
                continue;
            ++equal;
            if (other > number)
                free(kept->start);
            *kept = (struct bytes){0};
        }
        printf(", [%d, \"", equal);
        for (size_t place = 0; place < one.length; ++place)
            printf("%02x", (unsigned char)one.start[place]);
        printf("\"]");
        free(one.start);
    }
}

static void answer(void)
{
    if (!strcmp(command.verb, "ages")) {
        printf("[%zu]\n", ages.length / sizeof(float));
        fwrite(ages.start, 1, ages.length, stdout);
        ages.length = 0;
    } else {
        print_times();
        if (!strcmp(command.verb, "examine"))
            print_kept();
        printf("]\n");
    }
    fflush(stdout);
    command.verb[0] = '\0';
}

/* Begin the next command; exit at the end of standard input. */
static void begin(void)
{
    static long due;
    char line[64];
    long messages, ahead, unit = how.frame_bytes ? how.frame_bytes : 1;
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    if (sscanf(line, "%15s %ld %ld", command.verb, &messages, &ahead) != 3)
        fail("expected a command, got %s", line);
    due += messages * unit;
    command.due = due;
    command.most = due + ahead * unit;
    command.missing = 0;
    if (!strcmp(command.verb, "ages"))
        return;
    double now = seconds(CLOCK_MONOTONIC);
    for (int number = 0; number < count; ++number) {
        clients[number].reached = now;
        command.missing += clients[number].received < due;
        if (clients[number].received > command.most)
            fail("a client received more than was published");
    }
}

/* Have `serve` read from a client, or for NULL, the next line of standard input. */
static void watch(int epoll, int operation, int descriptor, struct client *client)
{
    uint32_t events = client ? EPOLLIN : EPOLLIN | EPOLLONESHOT;
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll, operation, descriptor, &event))
        fail("the descriptor %d cannot be watched: %s", descriptor, strerror(errno));
}

static void serve(int epoll)
{
    struct epoll_event ready[EVENTS];
    for (;;) {
        int events = epoll_wait(epoll, ready, EVENTS, command.verb[0] ? PATIENCE_MILLISECONDS : -1);
        if (events == 0)
            fail("%d clients did not receive all expected messages", command.missing);
        for (int event = 0; event < events; ++event) {
            if (ready[event].data.ptr)
                receive(ready[event].data.ptr);
            else
                begin();
        }
        if (command.verb[0] && !command.missing) {
            answer();
            watch(epoll, EPOLL_CTL_MOD, STDIN_FILENO, NULL);
        }
    }
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "b:m:a:s:q")) != -1) {
        switch (option) {
        case 'b': how.frame_bytes = atol(optarg); break;
        case 'm': how.mark = optarg[0]; break;
        case 'a': how.key = optarg; break;
        case 's': how.start = optarg; break;
        case 'q': how.acknowledges = 1; break;
        default: return 2;
        }
    }
    if (!how.start)
        how.start = how.key;
    count = argc - optind;
    clients = calloc((size_t)count, sizeof *clients);
    int epoll = epoll_create1(0);
    if (count < 1 || !clients || epoll < 0)
        fail("expected clients");
    for (int number = 0; number < count; ++number) {
        clients[number].descriptor = atoi(argv[optind + number]);
        watch(epoll, EPOLL_CTL_ADD, clients[number].descriptor, &clients[number]);
    }
    /* Unbuffered: epoll does not know of lines that stdio has read ahead. */
    setvbuf(stdin, NULL, _IONBF, 0);
    watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, NULL);
    printf("[]\n");
    fflush(stdout);
    serve(epoll);
}
