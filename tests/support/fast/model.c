// A model server for load tests, small and fast enough not to be what is measured.
//
//   GET  /health   200 when ready, else 503
//   POST /infer    {"inputs": X, ...} -> {"outputs": {"inputs": X, "tag", "replica", "requests"}}
//
// One thread for each kept-alive connection. It is steered by its environment:
//
// PORT           where it listens                     TAG          what every answer is tagged with
// START_MS       milliseconds before it listens       LATENCY_MS   milliseconds an inference takes
// NEVER_READY    /health says 503 for ever            EXIT_AT_START  it ends at once, with that code
// CRASH_AFTER    requests after which it ends         ERROR_EVERY  every n-th inference answers 500
// SLOW_EVERY     every n-th inference takes SLOW_MS   UNREADY_MS   /health says 503 for so long
//
// SIGTERM ends it at once, in the middle of whatever it answers: who stops it must have drained it.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 16 * 1024, BODY = 1024 * 1024, DEPTH = 200 };

static const char *tag, *replica;
static long latency_ms, slow_every, slow_ms, error_every, crash_after, unready_ms;
static int never_ready;
static struct timespec began;
static atomic_long requests;

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static void pause_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (ms > 0 && nanosleep(&left, &left) && errno == EINTR) {
  }
}

static int ready(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  long ms = (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000;
  return !never_ready && ms >= unready_ms;
}

// JSON, as far as finding one value takes: each returns the end of what it skips, or NULL.

static const char *blank(const char *at) {
  return at + strspn(at, " \t\r\n");
}

static const char *string(const char *at) {
  for (at++; *at && *at != '"'; at++)
    if (*at == '\\' && at[1]) at++;
  return *at ? at + 1 : NULL;
}

static const char *value(const char *at, int depth) {
  at = blank(at);
  if (*at == '"') return string(at);
  if (*at != '{' && *at != '[') {
    size_t length = strcspn(at, ",]} \t\r\n");
    return length ? at + length : NULL;
  }
  char open = *at, close = open == '{' ? '}' : ']';
  if (depth == DEPTH) return NULL;
  at = blank(at + 1);
  if (*at == close) return at + 1;
  for (;;) {
    if (open == '{') {
      at = blank(at);
      if (*at != '"' || !(at = string(at)) || *(at = blank(at)) != ':') return NULL;
      at++;
    }
    if (!(at = value(at, depth + 1))) return NULL;
    at = blank(at);
    if (*at == close) return at + 1;
    if (*at++ != ',') return NULL;
  }
}

// Finds the value of "inputs" in an object.
static const char *inputs(const char *body, size_t *length) {
  const char *at = blank(body);
  if (*at++ != '{') return NULL;
  while (*(at = blank(at)) == '"') {
    const char *name = at, *end = string(at);
    if (!end || *(at = blank(end)) != ':') return NULL;
    const char *from = blank(at + 1);
    if (!(at = value(from, 0))) return NULL;
    if (end - name == 8 && !memcmp(name, "\"inputs\"", 8)) {
      *length = (size_t)(at - from);
      return from;
    }
    at = blank(at);
    if (*at == ',') at++;
  }
  return NULL;
}

static int send_all(int fd, const char *from, size_t length) {
  while (length) {
    ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
    if (sent <= 0) return -1;
    from += sent;
    length -= (size_t)sent;
  }
  return 0;
}

static int answer(int fd, int status, const char *body, size_t length, char *out) {
  int head = sprintf(out, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     status, status == 200 ? "OK" : "No", length);
  memcpy(out + head, body, length);
  return send_all(fd, out, (size_t)head + length);
}

static int refuse(int fd, int status, const char *why, char *out) {
  char body[128];
  return answer(fd, status, body, (size_t)sprintf(body, "{\"error\":\"%s\"}", why), out);
}

static int infer(int fd, const char *body, char *made, char *out) {
  long count = atomic_fetch_add(&requests, 1) + 1;
  size_t length;
  const char *found = inputs(body, &length);
  if (!found) return refuse(fd, 400, "no inputs", out);
  pause_ms(slow_every && count % slow_every == 0 ? slow_ms : latency_ms);
  if (crash_after && count > crash_after) {
    printf("crashing as told, after %ld requests\n", crash_after);
    _exit(1);
  }
  if (error_every && count % error_every == 0) return refuse(fd, 500, "told to fail", out);
  int size = sprintf(made, "{\"outputs\":{\"inputs\":%.*s,\"tag\":\"%s\",\"replica\":\"%s\",\"requests\":%ld}}",
                     (int)length, found, tag, replica, count);
  return answer(fd, 200, made, (size_t)size, out);
}

static int serve_one(int fd, const char *head, const char *body, char *made, char *out) {
  if (!strncmp(head, "GET /health ", 12))
    return ready() ? answer(fd, 200, "{}", 2, out) : refuse(fd, 503, "not ready", out);
  if (!strncmp(head, "POST /infer ", 12)) return infer(fd, body, made, out);
  return refuse(fd, 404, "no such path", out);
}

// Returns the body's length, or -1 where it is not told or too much.
static long body_length(const char *head) {
  if (!strncmp(head, "GET ", 4)) return 0;
  for (const char *line = head; (line = strstr(line, "\r\n")); line += 2)
    if (!strncasecmp(line + 2, "Content-Length:", 15)) {
      long length = atol(line + 17);
      return length > BODY ? -1 : length;
    }
  return -1;
}

static void serve(int fd, char *in, char *made, char *out) {
  size_t have = 0;
  for (;;) {
    char *end;
    in[have] = 0;
    while (!(end = strstr(in, "\r\n\r\n"))) {
      ssize_t got = have < HEAD ? recv(fd, in + have, HEAD - have, 0) : 0;
      if (got <= 0) return;
      in[have += (size_t)got] = 0;
    }
    *end = 0;
    char *body = end + 4;
    long length = body_length(in);
    if (length < 0) {
      refuse(fd, 411, "no usable Content-Length", out);
      return;
    }
    size_t whole = (size_t)(body - in) + (size_t)length;
    while (have < whole) {
      ssize_t got = recv(fd, in + have, whole - have, 0);
      if (got <= 0) return;
      have += (size_t)got;
    }
    char after = in[whole];
    in[whole] = 0;
    if (serve_one(fd, in, body, made, out)) return;
    in[whole] = after;
    memmove(in, in + whole, have -= whole);
  }
}

static void *connection(void *given) {
  int fd = (int)(long)given, on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  char *in = malloc(HEAD + BODY + 8), *made = malloc(BODY + 512), *out = malloc(BODY + 1024);
  if (in && made && out) serve(fd, in, made, out);
  free(in), free(made), free(out);
  close(fd);
  return NULL;
}

static void end(int signal_number) {
  (void)signal_number;
  _exit(0);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGTERM, end);
  clock_gettime(CLOCK_MONOTONIC, &began);
  tag = getenv("TAG") ? getenv("TAG") : "";
  replica = getenv("PRSMD_REPLICA_ID") ? getenv("PRSMD_REPLICA_ID") : "";
  latency_ms = number("LATENCY_MS"), error_every = number("ERROR_EVERY");
  slow_every = number("SLOW_EVERY"), slow_ms = number("SLOW_MS");
  crash_after = number("CRASH_AFTER"), unready_ms = number("UNREADY_MS");
  never_ready = getenv("NEVER_READY") != NULL;
  if (getenv("EXIT_AT_START")) {
    printf("ending at start, as told\n");
    return (int)number("EXIT_AT_START");
  }
  pause_ms(number("START_MS"));

  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)number("PORT"))};
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024)) {
    perror("listen");
    return 1;
  }
  printf("listening, tag %s\n", tag);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    pthread_t thread;
    if (fd >= 0 && pthread_create(&thread, &attributes, connection, (void *)(long)fd)) close(fd);
  }
}
