// The service worker of the public page: it shows what is pushed, and nothing else.
self.addEventListener("push", function (event) {
  var said = event.data.json();
  event.waitUntil(self.registration.showNotification(said.title, {
    body: said.body === said.title ? "" : said.body, tag: said.tag, renotify: true,
    lang: said.language, data: said.url,
  }));
});
self.addEventListener("notificationclick", function (event) {
  event.notification.close();
  event.waitUntil(self.clients.openWindow(event.notification.data));
});
// A push service may change an address: the new one takes its place.
self.addEventListener("pushsubscriptionchange", function (event) {
  var old = event.oldSubscription;
  if (!old) return;
  event.waitUntil(Promise.resolve(event.newSubscription || self.registration.pushManager.subscribe(old.options))
    .then(function (fresh) {
      return fetch("/push", { method: "POST", headers: { "content-type": "application/json" },
        body: JSON.stringify({ subscription: fresh, replaces: old.endpoint }) });
    }));
});
