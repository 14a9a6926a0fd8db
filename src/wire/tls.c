/* TLS settings for listeners and clients, as buildkitd has them: TLS 1.2 or newer, ALPN h2, on a server with a CA clients must
 * show a certificate. Reading the PEM files blocks shortly. */
#include "wire/internal.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static const unsigned char alpn_h2[] = {2, 'h', '2'};

int tls_error(struct err *e, const void *ssl, const char *what)
{
	char text[200];
	unsigned long code = ERR_peek_last_error();
	long verify = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;
	ERR_error_string_n(code, text, sizeof text);
	if (verify != X509_V_OK)
		err_set(e, CODE_UNAVAILABLE, "%s: %s", what, X509_verify_cert_error_string(verify));
	else
		err_set(e, CODE_UNAVAILABLE, "%s: %s", what, code ? text : "the peer closed the connection");
	ERR_clear_error();
	return -1;
}

static int load(SSL_CTX *ctx, const struct wire_tls *t, struct err *e)
{
	ERR_clear_error();
	if (t->ca && SSL_CTX_load_verify_locations(ctx, t->ca, NULL) != 1) {
		tls_error(e, NULL, t->ca);
		return err_wrap(e, "cannot read the CA");
	}
	if (t->cert && SSL_CTX_use_certificate_chain_file(ctx, t->cert) != 1) {
		tls_error(e, NULL, t->cert);
		return err_wrap(e, "cannot read the certificate");
	}
	if (t->key && SSL_CTX_use_PrivateKey_file(ctx, t->key, SSL_FILETYPE_PEM) != 1) {
		tls_error(e, NULL, t->key);
		return err_wrap(e, "cannot read the key");
	}
	if (t->cert && SSL_CTX_check_private_key(ctx) != 1) {
		tls_error(e, NULL, t->cert);
		return err_wrap(e, "certificate and key do not belong together");
	}
	return 0;
}

/* Clients without ALPN are served (older ones); those that offer it must offer h2. */
static int choose_h2(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in, unsigned in_n, void *arg)
{
	unsigned char *got;
	if (SSL_select_next_proto(&got, n, alpn_h2, sizeof alpn_h2, in, in_n) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = got;
	return SSL_TLSEXT_ERR_OK;
}

SSL_CTX *tls_server_ctx(const struct wire_tls *t, struct err *e)
{
	if (!t->cert || !t->key) {
		err_set(e, CODE_INVALID_ARGUMENT, "TLS needs a certificate and a key");
		return NULL;
	}
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_alpn_select_cb(ctx, choose_h2, NULL);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"slipway", 7);
	if (t->ca) SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	if (t->ca) SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(t->ca));
	if (load(ctx, t, e) == 0) return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

void *tls_server_ssl(SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);
	SSL_set_accept_state(ssl);
	return ssl;
}

void tls_ssl_free(void *ssl) { SSL_free(ssl); }
void tls_ctx_free(SSL_CTX *ctx) { SSL_CTX_free(ctx); }
void tls_ctx_ref(SSL_CTX *ctx) { SSL_CTX_up_ref(ctx); }

static void expect_host(SSL *ssl, const char *host)
{
	unsigned char ip[16];
	if (inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1) {
		X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
	} else {
		SSL_set_tlsext_host_name(ssl, host);
		SSL_set1_host(ssl, host);
	}
}

void *tls_client_ssl(const struct wire_tls *t, const char *host, struct err *e)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = NULL;
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (!t->ca) SSL_CTX_set_default_verify_paths(ctx);
	if (load(ctx, t, e) == 0) {
		ssl = SSL_new(ctx);
		SSL_set_alpn_protos(ssl, alpn_h2, sizeof alpn_h2);
		expect_host(ssl, t->server_name ? t->server_name : host);
		SSL_set_connect_state(ssl);
	}
	SSL_CTX_free(ctx); /* the SSL holds its own reference */
	return ssl;
}
