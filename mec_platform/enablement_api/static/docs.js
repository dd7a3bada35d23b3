// Shows the platform's own OpenAPI document; requests that are tried out go to the platform that served this page.
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#apis",
    deepLinking: true,
    docExpansion: "list",
    persistAuthorization: false,
    validatorUrl: null,
  });
});
