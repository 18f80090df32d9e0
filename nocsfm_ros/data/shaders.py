"""GLSL of the renderer."""

VERTEX = """
#version 330
uniform mat4 clip_from_cam, cam_from_mesh, shadow_from_cam;
uniform mat3 normal_from_mesh;
uniform vec3 metres;
in vec3 in_position, in_normal, in_colour;
in vec2 in_uv;
in float in_layer;
out vec3 cam, normal, colour, mesh_m, mesh_normal;
out vec2 uv;
out vec3 shadow_at;
flat out float layer;
void main() {
    vec4 point = cam_from_mesh * vec4(in_position, 1.0);
    cam = point.xyz;
    normal = normal_from_mesh * in_normal;
    mesh_m = in_position * metres;
    mesh_normal = in_normal;
    colour = in_colour;
    uv = in_uv;
    layer = in_layer;
    shadow_at = (shadow_from_cam * point).xyz * 0.5 + 0.5;
    gl_Position = clip_from_cam * point;
}
"""

FRAGMENT = """
#version 330
uniform sampler2DArray pictures;
uniform sampler2DShadow shadow_map;
uniform vec3 to_sun, sun, ambient, tint;
uniform vec2 fill_and_shadow;
uniform vec4 look;  // surface layer, repeats per metre, specular strength, specular exponent
uniform float instance;
in vec3 cam, normal, colour, mesh_m, mesh_normal;
in vec2 uv;
in vec3 shadow_at;
flat in float layer;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out vec2 out_geometry;
void main() {
    // One fetch for both kinds of look: a software rasteriser pays for every branch of a texture choice.
    vec3 a = abs(mesh_normal);  // box mapping along the strongest axis of the normal
    vec2 boxed = look.y * (a.x > a.y && a.x > a.z ? mesh_m.zy : (a.y > a.z ? mesh_m.xz : mesh_m.xy));
    bool printed = look.x >= 0.0;
    vec4 texel = texture(pictures, vec3(printed ? boxed : uv, printed ? look.x : max(layer, 0.0)));
    bool textured = printed || layer >= 0.0;
    if (textured && texel.a < 0.5) discard;
    vec3 base = textured ? texel.rgb : colour;
    vec3 to_eye = normalize(-cam);
    vec3 n = normalize(normal);
    if (dot(n, to_eye) < 0.0) n = -n;
    float lit = max(dot(n, to_sun), 0.0);
    float blocked = 0.0;
    if (fill_and_shadow.y > 0.0 && all(greaterThan(shadow_at, vec3(0.0))) && all(lessThan(shadow_at,
    vec3(1.0))))
        blocked = fill_and_shadow.y
            * (1.0 - texture(shadow_map, shadow_at - vec3(0.0, 0.0, 0.006 + 0.01 * (1.0 - lit))));
    float gloss = look.z * pow(max(dot(n, normalize(to_sun + to_eye)), 0.0), look.w);
    vec3 light = ambient + fill_and_shadow.x * max(dot(n, to_eye), 0.0) + sun * lit * (1.0 - blocked);
    out_colour = vec4(base * tint * light + sun * gloss * (1.0 - blocked), 1.0);
    out_geometry = vec2(cam.z, instance);
}
"""

SHADOW_VERTEX = """
#version 330
uniform mat4 clip_from_mesh;
in vec3 in_position;
void main() { gl_Position = clip_from_mesh * vec4(in_position, 1.0); }
"""

SHADOW_FRAGMENT = """
#version 330
void main() {}
"""
