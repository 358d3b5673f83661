/* A consumer that decodes nothing: what one client can take from one server. Two kinds of bytes matter to it, ids and line ends.
   usage: emptying PORT STREAM GROUP COUNT; four reads of 100 in flight, the acknowledgement of a batch written with the next read.
   Prints: entries, seconds, CPU seconds. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 100, IN_FLIGHT = 4, ROOM = 8 << 20, CHUNK = 1 << 18 };

static int server;
static char *room;
static size_t from, until;

static void fail(const char *why) {
  perror(why);
  exit(1);
}

static void receive(void) {
  if (from == until) from = until = 0;
  if (until + CHUNK > ROOM) {
    memmove(room, room + from, until - from);
    until -= from;
    from = 0;
  }
  ssize_t got = read(server, room + until, CHUNK);
  if (got <= 0) fail("read");
  until += (size_t)got;
}

/* The next line of the reply, of the kind wanted. */
static const char *line(char kind) {
  for (;;) {
    char *end = memchr(room + from, '\n', until - from);
    if (end != NULL) {
      const char *start = room + from;
      from = (size_t)(end + 1 - room);
      if (*start != kind) {
        fprintf(stderr, "unexpected reply: %.60s\n", start);
        exit(1);
      }
      return start + 1;
    }
    receive();
  }
}

/* The next bulk string; valid until the next call. */
static const char *bulk(size_t *length) {
  *length = (size_t)atol(line('$'));
  while (until - from < *length + 2) receive();
  const char *start = room + from;
  from += *length + 2;
  return start;
}

static void send_all(const char *bytes, size_t left) {
  while (left > 0) {
    ssize_t sent = write(server, bytes, left);
    if (sent <= 0) fail("write");
    bytes += sent;
    left -= (size_t)sent;
  }
}

static double seconds_of(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void connect_to(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  server = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(server, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  int yes = 1;
  setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

int main(int words, char **word) {
  if (words != 5) return 2;
  const char *stream = word[2], *group = word[3];
  long wanted = atol(word[4]), taken = 0;
  connect_to(atoi(word[1]));
  room = malloc(ROOM);
  char ask[512], *out = malloc(64 * (BATCH + 8) + sizeof ask);
  int ask_length = snprintf(ask, sizeof ask,
      "*9\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$%zu\r\n%s\r\n$2\r\nc1\r\n$5\r\nCOUNT\r\n$3\r\n%d\r\n$7\r\nSTREAMS\r\n$%zu\r\n%s\r\n$1\r\n>\r\n",
      strlen(group), group, BATCH, strlen(stream), stream);
  double began = now();
  for (int i = 0; i < IN_FLIGHT; i++) send_all(ask, (size_t)ask_length);
  for (long reads = 0; taken < wanted; reads++) {
    if (reads >= IN_FLIGHT) line(':'); /* the first few reads went without an acknowledgement before them */
    size_t length;
    line('*'), line('*'), bulk(&length);
    int entries = atoi(line('*'));
    char *end = out + sprintf(out, "*%d\r\n$4\r\nXACK\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", 3 + entries, strlen(stream), stream, strlen(group), group);
    for (int i = 0; i < entries; i++) {
      line('*');
      const char *id = bulk(&length);
      end += sprintf(end, "$%zu\r\n%.*s\r\n", length, (int)length, id);
      for (int left = atoi(line('*')); left > 0; left--) bulk(&length);
    }
    taken += entries;
    memcpy(end, ask, (size_t)ask_length);
    send_all(out, (size_t)(end - out) + (size_t)ask_length);
  }
  double wall = now() - began;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("%ld %f %f\n", taken, wall, seconds_of(used.ru_utime) + seconds_of(used.ru_stime));
  fflush(stdout);
  for (char rest[4096]; read(server, rest, sizeof rest) > 0;) { /* until the suite ends us: the last acknowledgement must land */
  }
  return 0;
}
