// SPDX-License-Identifier: MIT
/*
 * Sessions as pairs: client and server side by side, what each step makes of both.
 */
#include "core/session.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define REKEY_US (120 * SM_SEC_US)

struct pair {
	struct sm_session *client, *server;
};

static struct sm_session *side(bool client)
{
	static const uint8_t root[SM_ROOT_SECRET_LEN] = {1, 2, 3};
	const struct sm_session_config config = {
		.index = client ? 0x10000 : 0x20000,
		.remote_index = client ? 0x20000 : 0x10000,
		.client = client,
		.tx_lanes = 2,
		.rx_lanes = 2,
		.rekey_after_us = REKEY_US,
	};
	struct sm_session *s;

	assert_int_equal(sm_session_new(config.index, 1, 0, &s), 0);
	assert_int_equal(sm_session_start(s, &config, root), 0);
	s->ready = true;
	return s;
}

static struct pair pair_new(void)
{
	return (struct pair){side(true), side(false)};
}

static void side_free(struct sm_session *s)
{
	for (int i = 0; i < SM_EPOCH_SLOT_COUNT; i++) {
		if (s->epoch[i]) {
			assert_true(sm_epoch_unref(s->epoch[i]));
			sm_epoch_free(s->epoch[i]);
		}
		s->epoch[i] = NULL;
	}
	sm_session_free(s);
}

static void pair_free(struct pair *p)
{
	side_free(p->client);
	side_free(p->server);
}

static struct sm_msg decode(const uint8_t *message, size_t len, bool from_client)
{
	struct sm_msg msg;

	assert_int_equal(sm_msg_decode(message, len,
				       SM_MSG_CTX_TLS | SM_MSG_CTX_HELLO_SEEN |
					       (from_client ? SM_MSG_CTX_FROM_CLIENT : 0),
				       &msg),
			 0);
	return msg;
}

/* Does a packet that @from seals now open at @to? Raises the event that a worker would. */
static bool carries(struct sm_session *from, struct sm_session *to, uint64_t now_us)
{
	uint8_t buf[256] = {0}, kind;
	struct sm_pbuf pkt = {.buf = buf, .cap = sizeof(buf)};
	struct sm_data_header h;
	bool newest;

	sm_pbuf_reset(&pkt);
	*sm_pbuf_put_tail(&pkt, 1) = 9;
	if (sm_session_seal(from, &pkt, SM_KIND_PROBE, now_us) ||
	    sm_data_header_decode(pkt.data, pkt.len, &h))
		return false;
	assert_int_equal(h.session, to->config.index);
	for (int i = 0; i < SM_EPOCH_SLOT_COUNT; i++) {
		struct sm_epoch *e = to->epoch[i];

		if (!e || (uint8_t)e->number != h.epoch ||
		    sm_rx_lane_open(&e->rx[0], &pkt, &h, now_us, &kind, &newest))
			continue;
		(void)!sm_session_on_epoch_event(to, e->number, SM_EPOCH_EVENT_RECEIVED, now_us);
		return true;
	}
	return false;
}

static struct sm_msg request_of(struct pair *p, uint64_t now_us)
{
	const uint8_t *message;
	size_t len;

	assert_int_equal(sm_session_tick(p->client, now_us, &message, &len), SM_SESSION_SEND);
	return decode(message, len, true);
}

static void expire(struct sm_session *s, uint64_t now_us)
{
	struct sm_epoch *old = sm_session_take_expired(s, now_us);

	if (old && sm_epoch_unref(old))
		sm_epoch_free(old);
}

static void assert_current(const struct pair *p, uint32_t client, uint32_t server)
{
	assert_int_equal(p->client->epoch[SM_EPOCH_CURRENT]->number, client);
	assert_int_equal(p->server->epoch[SM_EPOCH_CURRENT]->number, server);
}

static void test_rekey(void **state)
{
	struct pair p = pair_new();
	const uint8_t *message, *again;
	uint64_t now_us = 1000 * SM_SEC_US;
	size_t len, again_len;
	struct sm_msg request, reply;

	(void)state;
	assert_int_equal(sm_session_tick(p.client, now_us, &message, &len),
			 0); /* idle: nothing is due */
	assert_true(sm_session_deadline(p.client) == SM_NEVER);
	assert_true(carries(p.client, p.server, now_us) && carries(p.server, p.client, now_us));
	(void)!sm_session_on_epoch_event(p.client, 0, SM_EPOCH_EVENT_USED, now_us);
	(void)!sm_session_on_epoch_event(p.server, 0, SM_EPOCH_EVENT_USED, now_us);
	assert_true(sm_session_deadline(p.client) == now_us + REKEY_US);
	now_us += REKEY_US;
	request = request_of(&p, now_us);
	assert_int_equal(request.rekey.epoch, 1);

	/* the server reminds the client, until it is asked */
	assert_int_equal(sm_session_tick(p.server, now_us, &message, &len), SM_SESSION_SEND);
	assert_int_equal(decode(message, len, false).type, SM_MSG_REKEY_WANTED);
	assert_int_equal(sm_session_on_request(p.server, &request.rekey, now_us, &message, &len),
			 SM_SESSION_SEND | SM_SESSION_CHANGED);
	reply = decode(message, len, false);
	/* the same again gets the same again; another key is refused */
	assert_int_equal(sm_session_on_request(p.server, &request.rekey, now_us, &again,
					       &again_len),
			 SM_SESSION_SEND);
	assert_ptr_equal(message, again);
	request.rekey.kem[99] ^= 1;
	assert_int_equal(sm_session_on_request(p.server, &request.rekey, now_us, &again,
					       &again_len),
			 -EPROTO);
	assert_int_equal(sm_session_tick(p.server, now_us + 5 * SM_SEC_US, &again, &again_len), 0);

	assert_current(&p, 0, 0);
	assert_true(carries(p.client, p.server, now_us) && carries(p.server, p.client, now_us));
	assert_current(&p, 0, 0); /* the old epoch does not move the server */
	assert_int_equal(sm_session_on_reply(p.client, &reply.rekey, now_us), SM_SESSION_CHANGED);
	assert_current(&p, 1, 0);
	assert_int_equal(sm_session_on_reply(p.client, &reply.rekey, now_us), SM_SESSION_NOTHING);
	assert_true(carries(p.server, p.client, now_us)); /* late ones of the old epoch */
	/* until the server is heard on the new epoch: probes, and the old one is not given up */
	now_us += 60 * SM_SEC_US;
	expire(p.client, now_us);
	assert_non_null(p.client->epoch[SM_EPOCH_PREVIOUS]);
	assert_int_equal(sm_session_tick(p.client, now_us, &message, &len), SM_SESSION_PROBE);
	assert_int_equal(sm_session_tick(p.client, now_us, &message, &len), 0);
	assert_true(carries(p.server, p.client, now_us));
	assert_true(carries(p.client, p.server, now_us));
	assert_current(&p, 1, 1);
	assert_true(carries(p.server, p.client, now_us));
	now_us += SM_EPOCH_OVERLAP_US;
	assert_true(sm_session_deadline(p.client) <= now_us &&
		    sm_session_deadline(p.server) <= now_us);
	expire(p.client, now_us);
	expire(p.server, now_us);
	assert_null(p.client->epoch[SM_EPOCH_PREVIOUS]);
	assert_null(p.server->epoch[SM_EPOCH_PREVIOUS]);
	assert_int_equal(sm_session_tick(p.client, now_us, &message, &len), 0);
	/* what comes late changes nothing */
	request.rekey.kem[99] ^= 1;
	assert_int_equal(sm_session_on_request(p.server, &request.rekey, now_us, &again,
					       &again_len),
			 SM_SESSION_SEND);
	assert_current(&p, 1, 1);
	pair_free(&p);
}

static void test_refused(void **state)
{
	struct pair p = pair_new();
	const uint8_t *message;
	const uint64_t now_us = SM_SEC_US;
	struct sm_msg request;
	struct sm_msg_rekey wrong = {.epoch = 1};
	size_t len;

	(void)state;
	assert_int_equal(sm_session_on_reply(p.client, &wrong, now_us), -EPROTO); /* nobody asked */
	assert_int_equal(sm_session_on_reply(p.server, &wrong, now_us), -EPROTO);
	assert_int_equal(sm_session_on_request(p.client, &wrong, now_us, &message, &len), -EPROTO);
	wrong.epoch = 2;
	assert_int_equal(sm_session_on_request(p.server, &wrong, now_us, &message, &len), -EPROTO);
	wrong.epoch = 0;
	assert_int_equal(sm_session_on_request(p.server, &wrong, now_us, &message, &len),
			 SM_SESSION_NOTHING);
	wrong.epoch = 1; /* no point of the curve */
	assert_int_equal(sm_session_on_request(p.server, &wrong, now_us, &message, &len), -EBADMSG);
	assert_null(p.server->epoch[SM_EPOCH_NEXT]);
	/* a bad ciphertext, then the true one */
	sm_session_request_rekey(p.client);
	request = request_of(&p, now_us);
	assert_int_equal(sm_session_on_reply(p.client, &wrong, now_us), -EBADMSG);
	assert_int_equal(sm_session_on_request(p.server, &request.rekey, now_us, &message, &len),
			 SM_SESSION_SEND | SM_SESSION_CHANGED);
	const struct sm_msg reply = decode(message, len, false);

	assert_int_equal(sm_session_on_reply(p.client, &reply.rekey, now_us), SM_SESSION_CHANGED);
	assert_true(carries(p.client, p.server, now_us));
	pair_free(&p);
}

static void test_death(void **state)
{
	struct pair p = pair_new();
	const uint8_t *message;
	const uint64_t now_us = SM_SEC_US;
	size_t len;

	(void)state;
	(void)!sm_session_on_epoch_event(p.client, 0, SM_EPOCH_EVENT_USED, now_us);
	assert_int_equal(sm_session_tick(p.client, now_us + SM_EPOCH_DIES_US - 1, &message, &len),
			 SM_SESSION_SEND);
	assert_int_equal(sm_session_tick(p.client, now_us + SM_EPOCH_DIES_US, &message, &len),
			 SM_SESSION_DEAD);
	/* idle keys do not age */
	assert_int_equal(sm_session_tick(p.server, now_us + 2 * SM_EPOCH_DIES_US, &message, &len),
			 0);
	p.server->draining = true;
	p.server->drain_until_us = now_us + 5;
	assert_int_equal(sm_session_tick(p.server, now_us + 4, &message, &len), 0);
	assert_int_equal(sm_session_tick(p.server, now_us + 5, &message, &len), SM_SESSION_DEAD);
	pair_free(&p);
}

/* Messages lost, doubled and in any order, over many epochs: whatever either side seals, the other opens. */
static void test_any_order(void **state)
{
	struct rng rng = rng_init("any order");
	struct pair p = pair_new();
	struct sm_msg mail[2][64]; /* to client, to server */
	uint32_t mails[2] = {0, 0}, opened = 0, tries = 0;
	uint64_t now_us = SM_SEC_US;

	(void)state;
	for (uint32_t i = 0; i < 6000; i++) {
		const bool to_client = rng_below(&rng, 2);
		struct sm_session *s = to_client ? p.client : p.server;
		const uint8_t *message = NULL;
		size_t len = 0;
		unsigned todo;

		now_us += rng_u64(&rng) % SM_SEC_US;
		if (rng_below(&rng, 20) == 0)
			sm_session_request_rekey(s);
		expire(s, now_us);
		todo = sm_session_tick(s, now_us, &message, &len);
		assert_false(todo & SM_SESSION_DEAD);
		if ((todo & SM_SESSION_SEND) && mails[to_client] < 64)
			mail[to_client][mails[to_client]++] = decode(message, len, to_client);
		if (mails[!to_client]) { /* any of the letters; one in two stays to be read again */
			const uint32_t k = rng_below(&rng, mails[!to_client]);
			const struct sm_msg m = mail[!to_client][k];

			if (rng_below(&rng, 2))
				mail[!to_client][k] = mail[!to_client][--mails[!to_client]];
			if (m.type == SM_MSG_REKEY_WANTED)
				sm_session_request_rekey(s);
			else if (m.type == SM_MSG_REKEY_REPLY)
				assert_true(sm_session_on_reply(s, &m.rekey, now_us) >= 0);
			else
				assert_true(sm_session_on_request(s, &m.rekey, now_us, &message,
								  &len) >= 0);
			if (m.type == SM_MSG_REKEY_REQUEST && len && rng_below(&rng, 3) &&
			    mails[0] < 64)
				mail[0][mails[0]++] = decode(message, len, false);
		}
		tries += 2;
		opened += carries(p.client, p.server, now_us);
		opened += carries(p.server, p.client, now_us);
		assert_int_equal(opened, tries);
	}
	printf("%u epochs\n", p.client->rekeys);
	assert_true(p.client->rekeys > 100);
	pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rekey),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
