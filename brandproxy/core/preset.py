"""The preset deflate dictionary of token version 1. Part of the wire format: not one byte may ever change.

Pieces that URLs in mail are made of, the commonest last (deflate reaches those with the shortest distance).
"""

PRESET_V1: bytes = (
    b"podcast/webinar/event/register/signup/login/password/reset/confirm/verify/token=redirect=returnUrl="
    b"facebook.com/twitter.com/x.com/instagram.com/linkedin.com/company/youtube.com/watch?v=tiktok.com/@"
    b"pinterest.com/itunes.apple.com/app/play.google.com/store/apps/details?id=wa.me/t.me/goo.gl/maps"
    b"cdn.static.assets.media/images/img/uploads/wp-content/.png.jpg.jpeg.gif.webp.svg.pdf.css"
    b"invoice/order/orders/cart/checkout/account/settings/preferences/profile/help/support/contact/about/"
    b"legal/terms/privacy-policy/view-in-browser/email/newsletter/unsubscribe/manage?subscriber=user=uid=hash="
    b"category/collections/collection/products/product/shop/sale/offers/offer/deals/news/article/articles/"
    b"blog/posts/post/2024/2025/2026/2027/2028/.html.aspx.php?id=&lang=&locale=en-us/en/de/fr/es/it/"
    b"&gclid=&fbclid=&mc_cid=&mc_eid=&_hsenc=&_hsmi=&ref=email&source=email&cid="
    b"?utm_campaign=&utm_id=&utm_term=&utm_content=button-header-footer-logo-cta-image&utm_medium=email"
    b"&utm_campaign=?utm_source=newsletter&utm_medium=email&utm_campaign="
    b"docs.api.shop.blog.app.go.info.links.click.email.mail.news."
    b".org/.net/.io/.eu/.fr/.nl/.co/.de/.co.uk/.com.au/.com/http://www.https://www.https://"
)
